// Requests in the name of who is signed in.

import { problemOf, unreachable } from "./problems.js";
import * as session from "./session.js";

const KEPT_FOR_DOWNLOAD_MS = 60_000;

/** The response, once it is one of success. Throws a Problem, or AbortError when `signal` says so. */
export async function send(method, path, { body, signal, headers = {} } = {}) {
  const request = (token) =>
    fetchOrProblem(`/api/v1/${path}`, {
      method,
      signal,
      credentials: "omit", // the cookies here are the admin site's
      cache: "no-store",
      headers: {
        ...headers,
        Authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  const token = await session.accessToken();
  let response = await request(token);
  if (response.status === 401) {
    // Refused before anything was done, so asking once more does nothing twice.
    response = await request(await session.accessTokenAfter(token));
    if (response.status === 401) session.end("ended");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function fetchOrProblem(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

async function json(method, path, body) {
  const response = await send(method, path, { body });
  return response.status === 204 ? null : response.json();
}

export const get = (path) => json("GET", path);
export const post = (path, body) => json("POST", path, body);
export const patch = (path, body) => json("PATCH", path, body);
export const remove = (path, body) => json("DELETE", path, body);

/** One page of a list: `{ results, cursor }`, cursor null on the last one. */
export async function page(path, { cursor, ...parameters } = {}) {
  const query = new URLSearchParams(parameters);
  if (cursor) query.set("cursor", cursor);
  const { results, next } = await get(`${path}?${query}`);
  // Of the address only the cursor: behind a proxy the rest may name another host.
  return { results, cursor: next && new URL(next, location.origin).searchParams.get("cursor") };
}

/** A file to keep, under the name that the server gives it. */
export async function download(path) {
  const response = await send("GET", path);
  const disposition = response.headers.get("Content-Disposition") ?? "";
  const name = /filename="([^"]+)"/.exec(disposition)?.[1] ?? "download";
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_FOR_DOWNLOAD_MS);
}
