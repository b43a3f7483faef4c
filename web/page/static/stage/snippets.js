// The last request, as curl and fetch make it; never with the key itself.
import { credentials } from "../server/key.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const address = `${location.origin}${document.documentElement.dataset.root}/generate`;

/** Without previews: a program waits for the picture. */
function body({ previews, ...order }) {
  return JSON.stringify(order);
}

export function curl(order, kind) {
  const file = kind === "image" ? " \\\n  -H 'Accept: image/png' -o picture.png" : "";
  const key = credentials().Authorization ? ' \\\n  -H "Authorization: Bearer $KEY"' : "";
  return `curl ${address} \\\n  -H 'Content-Type: application/json'${key}${file} \\\n  -d ${quoted(body(order))}`;
}

export function fetchCall(order, kind) {
  const accept = kind === "image" ? ', "Accept": "image/png"' : "";
  const key = credentials().Authorization ? ', "Authorization": `Bearer ${key}`' : "";
  return `const answer = await fetch(${JSON.stringify(address)}, {
  method: "POST",
  headers: {"Content-Type": "application/json"${key}${accept}},
  body: JSON.stringify(${body(order)}),
});
const ${kind === "image" ? "picture = await answer.blob()" : "{text} = await answer.json()"};`;
}
