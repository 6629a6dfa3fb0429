// Taking one's data along, closing the account, erasing it.

import * as api from "./api.js";
import { ask } from "./dialogs.js";
import { whileBusy } from "./dom.js";
import { Problem, sentenceFor } from "./problems.js";
import * as session from "./session.js";

export function showLeaving({ exportData, exportNote, close, erase }, me) {
  const fields = [
    // Whose password it is, for what keeps passwords.
    { name: "username", label: "Name", value: me.username, autocomplete: "username", hidden: true },
    {
      name: "current_password",
      label: "Your password",
      type: "password",
      autocomplete: "current-password",
      required: true,
    },
  ];

  exportData.addEventListener("click", () => whileBusy(exportData, download));
  close.addEventListener("click", () =>
    ask({
      title: "Close your account?",
      text:
        "You are signed out everywhere and cannot sign in again, and your API keys stop working. " +
        "What is in the account stays; an administrator can open it again.",
      fields,
      action: "Close my account",
      isDangerous: true,
      act: async ({ current_password }) => {
        await api.post("users/me/deactivate", { current_password });
        session.end("Your account is closed.");
      },
    }),
  );
  erase.addEventListener("click", () =>
    ask({
      title: `Erase ${me.username}?`,
      text:
        "Your account and everything in it is erased for good: conversations, memory, usage, " +
        "sessions and API keys. Nobody can bring it back. Export your data first if you want it.",
      fields,
      action: "Erase everything",
      isDangerous: true,
      act: async ({ current_password }) => {
        await api.remove("users/me", { current_password });
        session.end("Your account and everything in it is erased.");
      },
    }),
  );

  async function download() {
    exportNote.textContent = "Collecting …";
    try {
      await api.download("users/me/export");
      exportNote.textContent = "Your browser has it.";
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      exportNote.textContent = sentenceFor(error);
    }
  }
}
