// The list of conversations beside everything else, the latest first.

import * as api from "./api.js";
import { isolated, make, whileBusy } from "./dom.js";
import { Problem, sentenceFor } from "./problems.js";

const PATH = "consciousness/conversations";
const PAGE = 30;

export class ConversationList {
  #slots;
  #items = [];
  #cursor = null;
  #current = null;
  #isBeyondFirstPage = false;

  /** `slots`: list, more, empty. */
  constructor(slots) {
    this.#slots = slots;
    slots.more.addEventListener("click", () => whileBusy(slots.more, () => this.#loadMore()));
  }

  /** Read the newest again: something was said. */
  async reload() {
    await this.#read(null, (fresh) => {
      // What was loaded of older ones stays, but for those that have come up.
      const ids = new Set(fresh.map(({ id }) => id));
      const oldest = fresh.at(-1)?.updated_at ?? "";
      const older = this.#items.filter((item) => item.updated_at < oldest && !ids.has(item.id));
      return fresh.length < PAGE ? fresh : [...fresh, ...older];
    });
  }

  renamed(id, title) {
    this.#items = this.#items.map((item) => (item.id === id ? { ...item, title } : item));
    this.#draw();
  }

  deleted(id) {
    this.#items = this.#items.filter((item) => item.id !== id);
    this.#draw();
  }

  async #loadMore() {
    const before = this.#items.length;
    this.#isBeyondFirstPage = true;
    await this.#read(this.#cursor, (older) => {
      const ids = new Set(this.#items.map(({ id }) => id));
      return [...this.#items, ...older.filter(({ id }) => !ids.has(id))];
    });
    this.#slots.list.children[before]?.querySelector("a").focus();
  }

  async #read(cursor, merge) {
    try {
      const page = await api.page(PATH, { limit: PAGE, cursor });
      this.#items = merge(page.results);
      // After a reload the place to go on from is still the end of what is listed.
      if (cursor || !this.#isBeyondFirstPage) this.#cursor = page.cursor;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (!error.isSessionOver) this.#tell(sentenceFor(error));
      return;
    }
    this.#draw();
  }

  /** Mark the one that is open; null for none. */
  set current(id) {
    this.#current = id;
    for (const link of this.#slots.list.querySelectorAll("a")) this.#mark(link);
  }

  #draw() {
    const { list, more } = this.#slots;
    const focused = document.activeElement?.closest("a")?.hash;
    list.replaceChildren(...this.#items.map((item) => make("li", {}, this.#link(item))));
    more.hidden = this.#cursor === null;
    this.#tell(this.#items.length === 0 ? "None yet." : "");
    if (!document.activeElement || document.activeElement === document.body) {
      // The focus was on a link that was just replaced.
      [...list.querySelectorAll("a")].find((link) => link.hash === focused)?.focus();
    }
  }

  #link({ id, title }) {
    const link = make("a", { href: `#/chat/${id}`, title }, isolated(title));
    this.#mark(link);
    return link;
  }

  #mark(link) {
    const isCurrent = this.#current !== null && link.hash === `#/chat/${this.#current}`;
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }

  #tell(words) {
    this.#slots.empty.textContent = words;
    this.#slots.empty.hidden = !words;
  }
}
