// The console: who is signed in meets the frame, everybody else the way in.

import * as api from "./api.js";
import { forgetDrafts } from "./composer.js";
import { closeAll } from "./dialogs.js";
import { stopAll } from "./exchange.js";
import { showFrame } from "./frame.js";
import { Problem, sentenceFor } from "./problems.js";
import * as session from "./session.js";
import { showSignIn } from "./sign-in.js";

const ENDED = "Your session has ended. Sign in again.";
const place = document.getElementById("console");
let leaveFrame = () => {};
let lastUser = null;

session.whenOver((reason) => letIn(reason === "ended" ? ENDED : reason));

function letIn(message = "") {
  closeAll();
  stopAll();
  leaveFrame();
  leaveFrame = () => {};
  showSignIn(place, { message, signedIn: open });
}

async function open() {
  let me;
  try {
    me = await api.get("auth/me");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (!error.isSessionOver) letIn(sentenceFor(error));
    return;
  }
  if (me.username !== lastUser) forgetDrafts();
  lastUser = me.username;
  leaveFrame = showFrame(place, me);
}

async function start() {
  try {
    if (await session.resume()) await open();
    else if (!place.hasChildNodes()) letIn();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    letIn(sentenceFor(error));
  }
}

start();
