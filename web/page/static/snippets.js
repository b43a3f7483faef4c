// The last request, as curl and fetch make it.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Without previews: a program waits for the picture. */
function body({ previews, ...order }) {
  return JSON.stringify(order);
}

export function curl(order, kind) {
  const file = kind === "image" ? " \\\n  -H 'Accept: image/png' -o picture.png" : "";
  return `curl ${location.origin}/generate \\\n  -H 'Content-Type: application/json'${file} \\\n  -d ${quoted(body(order))}`;
}

export function fetchCall(order, kind) {
  const accept = kind === "image" ? ', "Accept": "image/png"' : "";
  return `const answer = await fetch(${JSON.stringify(`${location.origin}/generate`)}, {
  method: "POST",
  headers: {"Content-Type": "application/json"${accept}},
  body: JSON.stringify(${body(order)}),
});
const ${kind === "image" ? "picture = await answer.blob()" : "{text} = await answer.json()"};`;
}
