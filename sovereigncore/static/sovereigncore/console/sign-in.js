// The way in.

import { clone } from "./dom.js";
import { wire } from "./forms.js";
import { Problem } from "./problems.js";
import * as session from "./session.js";

const MEMBER = "read write";

/** Show it in `place`, with a word on why; `signedIn()` is called when somebody is. */
export function showSignIn(place, { message, signedIn }) {
  const { root, note, form, code } = clone("sign-in");
  note.textContent = message;
  note.hidden = !message;
  wire(form, async ({ username, password, otp, admin }) => {
    // A member's rights do, also for those who have more: the tokens are in a browser.
    const scope = admin ? `${MEMBER} admin` : MEMBER;
    try {
      await session.signIn({ username, password, otp, scope });
    } catch (problem) {
      throw asForPeople(problem);
    }
    signedIn();
  });

  function asForPeople(problem) {
    // The API asks for the code of those who need one, once their password is right.
    if (/one-time code/.test(problem.detail)) {
      const wasAsked = !code.hidden;
      code.hidden = false;
      form.elements.otp.required = true;
      const message = wasAsked ? "This code is not right, or was used before." : "Your code, please.";
      return new Problem({ status: problem.status, errors: { otp: [message] } });
    }
    if (problem.code === "invalid_scope") {
      const detail = "This account has no such rights.";
      return new Problem({ status: problem.status, detail });
    }
    return problem;
  }

  place.replaceChildren(root);
  document.title = "Sign in · SovereignCore";
  form.elements.username.focus();
}
