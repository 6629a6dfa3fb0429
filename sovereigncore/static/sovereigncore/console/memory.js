// Facts that one asked to be remembered.

import * as api from "./api.js";
import { ask } from "./dialogs.js";
import { clone, count, make, moment, whileBusy } from "./dom.js";
import { wire } from "./forms.js";
import { Problem, sentenceFor } from "./problems.js";

const PATH = "consciousness/memories";
const PAGE = 20;

export function memoryView({ main, setTitle }) {
  const slots = clone("memory");
  const { root, add, find, found, list, more, problem } = slots;
  let search = "";
  let cursor = null;

  main.append(root);
  setTitle("Memory");
  wire(add, async ({ text }) => {
    await api.post(PATH, { text });
    add.reset();
    search = find.elements.search.value = "";
    await load();
    return "Remembered.";
  });
  find.addEventListener("submit", (event) => {
    event.preventDefault();
    startSearch();
  });
  // The cross in a search field sends nothing.
  find.elements.search.addEventListener("input", (event) => {
    if (event.target.value === "" && search !== "") startSearch();
  });
  more.addEventListener("click", () => whileBusy(more, () => load(cursor)));
  load();

  async function startSearch() {
    search = find.elements.search.value.trim();
    await load();
  }

  async function load(from = null) {
    let page;
    try {
      page = await api.page(PATH, search ? { search, limit: 100 } : { limit: PAGE, cursor: from });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (!error.isSessionOver) problem.textContent = sentenceFor(error);
      return;
    }
    problem.textContent = "";
    const rows = page.results.map(row);
    if (from) list.append(...rows);
    else list.replaceChildren(...rows);
    if (from) rows[0]?.querySelector("button").focus();
    cursor = page.cursor;
    more.hidden = cursor === null;
    found.textContent = summary(list.children.length);
  }

  function summary(shown) {
    if (search) return shown ? `${count(shown, "fact")} found, the best first.` : "Nothing found.";
    return shown ? "" : "Nothing is remembered yet.";
  }

  function row(fact) {
    const item = clone("fact");
    item.text.textContent = fact.text;
    item.when.append(moment(fact.updated_at));
    item.edit.addEventListener("click", () => edit(fact));
    item.remove.addEventListener("click", () => forget(fact));
    return item.root;
  }

  async function edit(fact) {
    await ask({
      title: "Edit the fact",
      fields: [
        {
          name: "text",
          label: "Fact",
          long: true,
          rows: 4,
          value: fact.text,
          required: true,
        },
      ],
      action: "Save",
      act: async ({ text }) => {
        await api.patch(`${PATH}/${fact.id}`, { text });
        await load();
      },
    });
  }

  async function forget(fact) {
    await ask({
      title: "Forget this fact?",
      text: fact.text,
      action: "Forget",
      isDangerous: true,
      act: async () => {
        await api.remove(`${PATH}/${fact.id}`);
        await load();
      },
    });
  }
}
