// One conversation on the server: its turns, its name and its end.

import * as api from "./api.js";
import { ask } from "./dialogs.js";

const PATH = "consciousness/conversations";
const PAGE = 20;
const LONGEST_TITLE = 100;

export function readConversation(id) {
  return api.get(`${PATH}/${id}`);
}

/** A page of its turns, the newest page first and on it the oldest turn: `{ cursor, turns,
 * isUnfinished }`. The history tells more of each than the conversation's messages do. */
export async function readTurns(id, cursor = null) {
  const found = await api.page("consciousness/queries", { conversation: id, limit: PAGE, cursor });
  return {
    cursor: found.cursor,
    turns: found.results.filter((query) => query.prompt !== null).reverse(),
    isUnfinished: found.results.some(({ status }) => status === "queued" || status === "running"),
  };
}

/** Ask for another title; `renamed(title)` is told what the server made of it. */
export function askToRename(id, title, renamed) {
  return ask({
    title: "Rename the conversation",
    fields: [{ name: "title", label: "Title", value: title, required: true }],
    action: "Rename",
    act: async (given) => renamed((await api.patch(`${PATH}/${id}`, given)).title),
  });
}

/** Ask whether it is to be deleted; `deleted()` once it is. */
export function askToDelete(id, deleted) {
  return ask({
    title: "Delete the conversation?",
    text: "Its questions and answers are deleted for good. What they used stays counted.",
    action: "Delete",
    isDangerous: true,
    act: async () => {
      await api.remove(`${PATH}/${id}`);
      deleted();
    },
  });
}

/** The title that the server makes of a first question. */
export function titleFor(prompt) {
  const characters = [...prompt.split(/\s+/).join(" ")];
  if (characters.length <= LONGEST_TITLE) return characters.join("");
  return `${characters.slice(0, LONGEST_TITLE - 1).join("")}…`;
}
