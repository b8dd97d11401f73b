// Try the routing rules on a file: only its beginning is sent, and nothing of it is kept.
import { announce } from "./page.js";

const HEAD = 1 << 20;
const box = document.querySelector("[data-file]"), tried = document.getElementById("tried");
box.hidden = false;
box.querySelector("input").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (!file) return;
  const answer = await fetch(`/routes/file?cut=${file.size > HEAD}`, {
    method: "POST",
    headers: { "Content-Type": "application/dicom", "HX-Request": "true", "X-CSRF-Token": document.body.dataset.csrf },
    body: file.slice(0, HEAD),
  });
  tried.innerHTML = await answer.text();
  announce(tried.innerText);
});
