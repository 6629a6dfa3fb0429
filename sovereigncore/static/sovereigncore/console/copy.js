// To the clipboard.

import { announce } from "./announce.js";

const SHOWN_MS = 2000;

/** Copy `text`, and let `button` say so for a moment. */
export async function copy(text, button) {
  const isDone = await toClipboard(text);
  const label = button.textContent;
  const told = isDone ? "Copied" : "Not copied";
  if (label === told) return;
  button.textContent = told;
  announce(told);
  setTimeout(() => {
    button.textContent = label;
  }, SHOWN_MS);
}

async function toClipboard(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  // Without https, and away from loopback, browsers have the old way only. A modal dialog makes
  // everything outside it inert.
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  const focused = document.activeElement;
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return isDone;
}
