// Replaces each [data-refresh] part of the page with a fresh one every two seconds, while the page is looked at.
"use strict";
const PERIOD_MS = 2000;
const pulse = document.getElementById("pulse");

async function refresh(part) {
  const answer = await fetch(part.dataset.refresh, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(answer.status);
  const html = await answer.text();
  if (html === part.dataset.shown) return;
  const left = Array.from(part.querySelectorAll(".scroll"), (box) => box.scrollLeft);
  part.innerHTML = html;
  part.dataset.shown = html;
  part.querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = left[index] || 0; });
}

async function run() {
  if (!document.hidden && !String(window.getSelection())) {
    try {
      await Promise.all(Array.from(document.querySelectorAll("[data-refresh]"), refresh));
      pulse.className = "ok";
    } catch (error) {
      pulse.className = "lost";
    }
  }
  setTimeout(run, PERIOD_MS);
}
setTimeout(run, PERIOD_MS);
