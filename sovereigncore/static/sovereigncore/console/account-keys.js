// API keys, for programs.

import * as api from "./api.js";
import { copy } from "./copy.js";
import { ask, showOnce } from "./dialogs.js";
import { clone, moment, whileBusy } from "./dom.js";
import { wire } from "./forms.js";
import { Problem, sentenceFor } from "./problems.js";

const PATH = "keys";
const DAY_MS = 24 * 3600 * 1000;
const SCOPES = ["read", "write", "admin"];

export function showKeys(slots, me) {
  const { newKey, keys, moreKeys, keysNote, adminScope } = slots;
  let cursor = null;

  // Nobody can give a key more than this session has.
  adminScope.hidden = !me.scopes.includes("admin");
  wire(newKey, async ({ name, days, ...given }) => {
    const scopes = SCOPES.filter((scope) => given[scope]);
    if (scopes.length === 0) {
      throw new Problem({ status: 422, detail: "Choose what the key may do." });
    }
    const expires_at = days ? new Date(Date.now() + Number(days) * DAY_MS).toISOString() : null;
    const made = await api.post(PATH, { name, scopes, expires_at });
    newKey.reset();
    load();
    await showOnce({
      title: "Your new API key",
      text: "Copy it now: it is not shown again. Whoever has it can use your account.",
      label: made.name,
      secret: made.key,
      copy,
    });
    return `The key “${made.name}” is made.`;
  });
  moreKeys.addEventListener("click", () => whileBusy(moreKeys, () => load(cursor)));
  load();

  async function load(from = null) {
    try {
      const page = await api.page(PATH, { cursor: from });
      const rows = page.results.map(row);
      if (from) keys.append(...rows);
      else keys.replaceChildren(...rows);
      cursor = page.cursor;
      moreKeys.hidden = cursor === null;
      keysNote.textContent = keys.children.length === 0 ? "You have no API keys." : "";
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      keysNote.textContent = error.isSessionOver ? "" : sentenceFor(error);
    }
  }

  function row(key) {
    const { root, name, hint, facts, revoke } = clone("key");
    name.textContent = key.name;
    hint.textContent = key.hint;
    facts.append(`May ${key.scopes.join(", ")}. `, ...standing(key));
    root.classList.toggle("is-over", isOver(key));
    revoke.hidden = isOver(key);
    revoke.setAttribute("aria-label", `Revoke ${key.name}`);
    revoke.addEventListener("click", () => end(key));
    return root;
  }

  async function end(key) {
    await ask({
      title: `Revoke “${key.name}”?`,
      text: "Programs that use it are refused from now on, and so are keys that were made with it.",
      action: "Revoke",
      isDangerous: true,
      act: async () => {
        await api.remove(`${PATH}/${key.id}`);
        await load();
      },
    });
  }
}

function isOver(key) {
  return key.revoked_at !== null || (key.expires_at !== null && new Date(key.expires_at) < new Date());
}

function standing(key) {
  if (key.revoked_at) return ["Revoked ", moment(key.revoked_at), "."];
  return [
    ...(key.last_used_at ? ["Last used ", moment(key.last_used_at), ". "] : ["Not used yet. "]),
    ...(key.expires_at
      ? [isOver(key) ? "Expired " : "Expires ", moment(key.expires_at, { dateStyle: "medium" }), "."]
      : ["Does not expire."]),
  ];
}
