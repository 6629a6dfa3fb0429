"""Facts for tests, and finding them."""

from __future__ import annotations

from collections.abc import Iterable

from accounts.models import User
from consciousness import memory
from consciousness.models import Memory
from consciousness.models.memory import digest

MEMORIES = "/api/v1/consciousness/memories"
DOG = "My dog is called Rex"
# Fifty of one person, some with the same words as DOG.
FACTS = """
My cat is called Tom
My daughter is called Ann and her school starts at eight
My street is called Elm Road
The neighbours' boat is called Albatross
Call the dentist on Monday
I was born in Bern in 1984
I live in Zurich with my wife
My wife's name is Clara
My brother Jonas plays the trumpet
My favourite colour is green
I am allergic to peanuts
I take my coffee black and without sugar
My car is a red Volvo from 2011
The car's tyres were changed in October
My passport expires in March 2031
I work as a nurse in the emergency department
My shift begins at six in the morning
My manager is Mrs Okafor
The wifi password is on the back of the router
The spare key hangs behind the boiler
The boiler was serviced by Meier Ltd
My blood group is 0 negative
I wear glasses for reading only
My shoe size is 43
I am learning Portuguese
Our holiday in Lisbon begins on 3 July
We stay at the hotel Mirador
My mother turns seventy in May
My father likes chess and old films
I have a subscription to the theatre
My gym is open until ten at night
I run ten kilometres on Sundays
My doctor said to drink more water
I prefer trains to planes
My laptop runs Linux
My phone's battery was replaced last winter
The garden needs water every second day in summer
The roses are cut in February
Tomatoes grow on the balcony
I bake bread on Saturdays
My oven heats unevenly on the left
I dislike coriander
My team meets on Tuesdays at nine
The project's budget is 40000 dollars
The report is due at the end of June
My bank is on the market square
The rent is paid on the first of the month
My bicycle has a flat front tyre
The piano is tuned twice a year
I give blood in spring
""".strip().splitlines()


def note(user: User, texts: Iterable[str]) -> list[Memory]:
    """Facts, at once."""
    rows = [Memory(user=user, text=text, text_digest=digest(text)) for text in texts]
    return Memory.objects.bulk_create(rows)


def recalled(user: User, text: str) -> list[str]:
    return [fact.text for fact in memory.recall(user=user, text=text)]


def found(user: User, text: str) -> list[str]:
    return [fact.text for fact in memory.search(user=user, text=text)]
