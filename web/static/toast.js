// A word that goes away by itself.
const SHOWN = 2_500;

let timer;

export function toast(text) {
  const element = document.getElementById("toast");
  element.textContent = text;
  clearTimeout(timer);
  timer = setTimeout(() => element.replaceChildren(), SHOWN);
}
