// Questions that have to be answered before anything happens.

import { clone, make } from "./dom.js";
import { wire } from "./forms.js";

/** Ask in a dialog. `fields` are `{ name, label, … }` with an input's attributes, `long: true` for a
 * text area; `act(values)` does what was agreed to, and the dialog stays open with the reason if that
 * throws a Problem. Resolves to whether it was done. */
export function ask({ title, text = "", fields = [], action, isDangerous = false, act }) {
  const { root, heading, words, form, inputs, cancel, submit } = clone("dialog");
  heading.textContent = title;
  words.textContent = text;
  words.hidden = !text;
  inputs.append(...fields.map(labelled));
  submit.textContent = action;
  submit.classList.toggle("danger", isDangerous);

  return new Promise((resolve) => {
    let isDone = false;
    wire(form, async (values) => {
      await act(values);
      isDone = true;
      root.close();
    });
    cancel.addEventListener("click", () => root.close());
    root.addEventListener("close", () => {
      root.remove();
      resolve(isDone);
    });
    open(root);
    // What destroys is not under the first key that is pressed.
    (inputs.querySelector(":not([hidden]) > :is(input, textarea)") ?? (isDangerous ? cancel : submit)).focus();
  });
}

/** Show a secret once, to be copied. Resolves when it is put away. */
export function showOnce({ title, text, label, secret, copy }) {
  const slots = clone("secret-dialog");
  slots.heading.textContent = title;
  slots.words.textContent = text;
  slots.label.textContent = label;
  slots.secret.value = secret;
  slots.copy.addEventListener("click", () => copy(secret, slots.copy));
  slots.close.addEventListener("click", () => slots.root.close());
  return new Promise((resolve) => {
    slots.root.addEventListener("close", () => {
      slots.root.remove();
      resolve();
    });
    open(slots.root);
    slots.secret.focus();
    slots.secret.select();
  });
}

/** Close what is open, because who was asked is gone. */
export function closeAll() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}

function open(dialog) {
  document.body.append(dialog);
  dialog.showModal(); // keeps the focus inside and gives it back
}

function labelled({ label, long = false, value = "", hidden = false, ...attributes }) {
  const id = `asked-${attributes.name}`;
  const input = make(long ? "textarea" : "input", { id, ...attributes });
  input.value = value;
  return make("div", { class: "field", hidden }, make("label", { for: id }, label), input);
}
