// Who is signed in: the tokens, how they are renewed, how it ends.
//
// The access token is in memory only. The refresh token is in sessionStorage, so that a reload does
// not end the session but closing the tab does, and nobody finds it in the browser later;
// localStorage and cookies would stay. A script that could read it could as well use the page: what
// keeps such scripts out is the content security policy.

import { Problem, problemOf, unreachable } from "./problems.js";
import * as tabs from "./tabs.js";

const STORED = "sovereigncore.refresh";
// Renewed when less than this is left, or less than a quarter: a request may wait a while before it
// is looked at.
const MARGIN_MS = 60_000;
const ANSWER_OF_TABS_MS = 150;
const OTHER_TABS_TURN_MS = 5_000;
const ANSWER_OF_SERVER_MS = 20_000; // other tabs wait for their turn meanwhile

let pair = null; // { access, refresh, staleAtMs, session, tokenId }
let renewing = null;
let markedHere = "";
const waiting = new Set(); // those that wait for another tab's pair
let onEnd = () => {};

/** `handle(reason)` is called when the session is over: "left", "ended" or what was given. */
export function whenOver(handle) {
  onEnd = handle;
}

export function isOpen() {
  return pair !== null;
}

/** Sign in. Throws a Problem. */
export async function signIn({ username, password, otp, scope }) {
  const form = new URLSearchParams({ username, password, scope });
  if (otp) form.set("otp", otp);
  adopt(pairOf(await post("/api/v1/auth/token", { body: form })));
}

/** Go on with this tab's session, or with the one of another tab. False where there is neither.
 * Throws a Problem where the server cannot be asked. */
export async function resume() {
  const refresh = stored();
  if (refresh) {
    pair = { access: "", refresh, staleAtMs: 0, ...claimsOf(refresh) };
    try {
      await renew("");
    } catch (problem) {
      if (problem.isSessionOver) return false;
      pair = null;
      throw problem;
    }
  } else {
    tabs.tell({ kind: "who" });
    await nextPair(ANSWER_OF_TABS_MS);
  }
  return isOpen();
}

/** The tokens that a change of the password gave, in place of those that it ended. */
export function replace(tokens) {
  const former = pair.session;
  adopt(pairOf(tokens));
  tabs.tell({ kind: "pair", of: former, pair });
}

/** A token that holds for a while yet. Throws a Problem. */
export async function accessToken() {
  if (!pair) throw over();
  if (Date.now() > pair.staleAtMs) await renew(pair.access);
  return pair.access;
}

/** Another token than `refused`, which was answered with 401. */
export async function accessTokenAfter(refused) {
  if (pair?.access === refused) await renew(refused);
  if (!pair) throw over();
  return pair.access;
}

/** Forget the session here and in the other tabs. Ending it on the server is somebody else's. */
export function end(reason) {
  if (!pair) return;
  tabs.tell({ kind: "over", of: pair.session, reason });
  forget(reason);
}

// --- one renewal at a time, in this tab and in all of them: a token spent twice ends the session ---

function renew(former) {
  renewing ??= tabs
    .exclusively(() => exchange(former))
    .finally(() => {
      renewing = null;
    });
  return renewing;
}

async function exchange(former) {
  const isRenewed = () => pair !== null && pair.access !== former;
  if (isRenewed()) return; // by another tab, while this one waited for its turn
  if (pair && tabs.isSpent(pair.tokenId) && pair.tokenId !== markedHere) {
    await nextPair(OTHER_TABS_TURN_MS);
    if (isRenewed()) return;
  }
  if (!pair) throw over();
  markedHere = pair.tokenId;
  tabs.markSpent(markedHere);
  let tokens;
  try {
    tokens = await post("/api/v1/auth/token/refresh", {
      body: JSON.stringify({ refresh_token: pair.refresh }),
      headers: { "Content-Type": "application/json" },
    });
  } catch (problem) {
    const isRefused = problem.status === 400 || problem.status === 401;
    if (!isRefused) throw problem; // try again later: the token may still be good
    end("ended");
    throw over();
  }
  if (!pair) throw over(); // signed out meanwhile
  adopt(pairOf(tokens));
  tabs.tell({ kind: "pair", of: pair.session, pair });
}

async function post(path, options) {
  const signal = AbortSignal.timeout(ANSWER_OF_SERVER_MS);
  let response;
  try {
    response = await fetch(path, { method: "POST", credentials: "omit", signal, ...options });
  } catch {
    throw unreachable();
  }
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

// --- the pair ------------------------------------------------------------------------------------

function pairOf(tokens) {
  const lifetimeMs = tokens.expires_in * 1000;
  return {
    access: tokens.access_token,
    refresh: tokens.refresh_token,
    // By this clock only, which may be a wrong one.
    staleAtMs: Date.now() + lifetimeMs - Math.min(MARGIN_MS, lifetimeMs / 4),
    ...claimsOf(tokens.refresh_token),
  };
}

function claimsOf(token) {
  const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
  const { sid, jti } = JSON.parse(atob(payload));
  return { session: sid, tokenId: jti };
}

function adopt(fresh) {
  pair = fresh;
  store(fresh.refresh);
  for (const go of waiting) go();
}

function forget(reason) {
  pair = null;
  store(null);
  onEnd(reason);
}

function over() {
  return new Problem({ status: 401, detail: "Your session has ended." });
}

function stored() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null; // storage is switched off: each load is a new sign-in
  }
}

function store(refresh) {
  try {
    if (refresh === null) sessionStorage.removeItem(STORED);
    else sessionStorage.setItem(STORED, refresh);
  } catch {
    // as above
  }
}

// --- other tabs ----------------------------------------------------------------------------------

function nextPair(atMostMs) {
  return new Promise((resolve) => {
    const timer = setTimeout(go, atMostMs);
    function go() {
      clearTimeout(timer);
      waiting.delete(go);
      resolve();
    }
    waiting.add(go);
  });
}

tabs.listen((message) => {
  const isOurs = pair !== null && message.of === pair.session;
  if (message.kind === "who" && pair?.access) {
    tabs.tell({ kind: "shared", of: pair.session, pair });
  } else if (message.kind === "pair" && isOurs) {
    adopt(message.pair);
  } else if (message.kind === "shared" && pair === null && waiting.size > 0) {
    adopt(message.pair);
  } else if (message.kind === "over" && isOurs) {
    forget(message.reason);
  }
});
