// Name, address and password.

import * as api from "./api.js";
import { moment } from "./dom.js";
import { wire } from "./forms.js";
import { Problem, sentenceFor } from "./problems.js";
import * as session from "./session.js";

const PATH = "users/me";

export function showProfile(slots, me) {
  const { profile, address, password, username, since, currentAddress } = slots;

  // Whose password it is, for what keeps passwords.
  slots.addressOwner.value = slots.passwordOwner.value = me.username;
  api.get(PATH).then(showUnlessTyped, (error) => {
    if (!(error instanceof Problem)) throw error;
    username.textContent = error.isSessionOver ? "" : sentenceFor(error);
  });

  // Who is quicker than the answer keeps what they have typed.
  function showUnlessTyped(account) {
    const typed = profile.elements.full_name.value;
    show(account);
    if (typed) profile.elements.full_name.value = typed;
  }

  function show(account) {
    username.textContent = account.username;
    since.replaceChildren(moment(account.created_at, { dateStyle: "long" }));
    currentAddress.textContent = account.email;
    profile.elements.full_name.value = account.full_name;
  }

  wire(profile, async ({ full_name }) => {
    show(await api.patch(PATH, { full_name }));
    return "Saved.";
  });

  wire(address, async ({ email, current_password }) => {
    await api.patch(PATH, { email, current_password });
    address.reset();
    return `A mail with a link is on its way to ${email}. The address changes when it is opened.`;
  });

  wire(password, async ({ current_password, new_password, again }) => {
    if (new_password !== again) {
      throw new Problem({ status: 422, errors: { again: ["The two are not the same."] } });
    }
    session.replace(await api.post(`${PATH}/password`, { current_password, new_password }));
    password.reset();
    return "Your password is changed. Your other sessions have ended.";
  });
}
