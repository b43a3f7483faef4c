// The texts of the page in its language.
const languages = {};
const root = document.documentElement;

async function load(language) {
	languages[language] ??= (await import(`./${language}.js`)).default;
}

await load(root.dataset.lang);

export const has = (key) => key in languages[root.dataset.lang];

export function t(key, values = {}) {
	const text = languages[root.dataset.lang][key] ?? key;
	return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** A number for people. */
export const amount = (number) => (number < 10 ? Math.max(number, 0.1).toFixed(1) : Math.round(number).toString());

/** Show all texts that the server rendered in this language. */
export async function speak(language) {
	await load(language);
	root.dataset.lang = language;
	root.lang = t("locale");
	remember("lang", language);
	for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
	for (const name of ["placeholder", "aria-label", "title"]) {
		for (const element of document.querySelectorAll(`[data-t-${name}]`)) {
			element.setAttribute(name, t(element.getAttribute(`data-t-${name}`)));
		}
	}
	document.dispatchEvent(new Event("language"));
}

/** In a cookie, so that the server renders the next page this way from the start. */
export function remember(name, value) {
	document.cookie = `${name}=${value}; Path=/; Max-Age=31536000; SameSite=Lax`;
}
