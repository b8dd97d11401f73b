// A secret shown once: choose it with a click, copy it with a button where the browser allows.
import { announce } from "./page.js";

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  field.addEventListener("focus", () => field.select());
  button.hidden = false;
  button.addEventListener("click", async () => {
    field.select();
    // plain HTTP has no clipboard interface; the selection is copied in the old way there
    if (navigator.clipboard) await navigator.clipboard.writeText(field.value);
    else document.execCommand("copy");
    button.textContent = button.dataset.copied;
    announce(button.dataset.copied);
  });
}
