// Keeps the page of `eva report --watch` up to date. Texts from data come escaped from the server.
"use strict";

const PAUSE = 2000;
const status = document.getElementById("status");
let version = document.body.dataset.version;

// Replaces an element's content, and keeps what the reader has opened.
function replaceContent(element, content) {
  const isOpen = new Map([...element.querySelectorAll("details > summary")].map((summary) => [summary.textContent, summary.parentElement.open]));
  element.replaceChildren(...content);
  for (const summary of element.querySelectorAll("details > summary")) {
    if (isOpen.has(summary.textContent)) summary.parentElement.open = isOpen.get(summary.textContent);
  }
}

async function read(path) {
  const reply = await fetch(path, { cache: "no-store" });
  if (!reply.ok) throw new Error(await reply.text());
  return { page: new DOMParser().parseFromString(await reply.text(), "text/html"), version: reply.headers.get("X-Version") };
}

async function refresh() {
  try {
    const state = await read("status");
    replaceContent(status, state.page.body.childNodes);
    if (state.version !== version) {
      const report = await read("report");
      for (const name of ["header", "nav", "main"]) replaceContent(document.querySelector(name), report.page.querySelector(name).childNodes);
      version = report.version;
    }
  } catch (error) {
    status.textContent = `Not live: ${error.message}. The page shows the last state; \`eva report --watch\` must be running.`;
  }
  setTimeout(refresh, PAUSE);
}

setTimeout(refresh, PAUSE);
