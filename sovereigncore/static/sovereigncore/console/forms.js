// Forms: sent once at a time, and told next to the fields what is wrong with them.

import { make } from "./dom.js";
import { Problem, sentenceFor } from "./problems.js";

let made = 0;

/** Let `form` be handled by `handle(values)`, which may throw a Problem and may return words of
 * success. */
export function wire(form, handle) {
  const problem = make("p", { class: "problem", role: "alert" });
  const success = make("p", { class: "success", role: "status" });
  form.querySelector(".actions").before(problem, success);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("[type=submit]");
    if (button.disabled) return;
    button.disabled = true;
    clear();
    try {
      success.textContent = (await handle(Object.fromEntries(new FormData(form)))) ?? "";
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      tell(error);
    } finally {
      button.disabled = false;
    }
  });

  function clear() {
    problem.textContent = success.textContent = "";
    for (const note of form.querySelectorAll(".field-problem")) note.remove();
    for (const field of form.elements) {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
  }

  function tell(told) {
    const known = Object.entries(told.errors).filter(([name]) => form.elements[name]?.after);
    if (known.length === 0) problem.textContent = sentenceFor(told);
    for (const [name, messages] of known) markField(form.elements[name], messages.join(" "));
    (known.length > 0 ? form.elements[known[0][0]] : null)?.focus();
  }
}

function markField(field, message) {
  const id = `field-problem-${++made}`;
  field.after(make("span", { class: "field-problem", id }, message));
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", id);
}
