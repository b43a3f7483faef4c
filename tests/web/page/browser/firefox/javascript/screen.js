const LIMIT = 60_000;

/** What a person does at the page, and sees of it. Whatever is looked for is waited for. */
export class Screen {
	constructor(page, url) {
		this.page = page;
		this.url = url;
		page.setDefaultTimeout(LIMIT);
	}

	open = (query = "") => this.page.goto(this.url + query);

	click = (selector) => this.page.locator(selector).click();

	choose = (model) => this.click(`[name=model][value=${model}]`);

	/** Write over what a field has. */
	async fill(selector, text) {
		await this.page.locator(selector).fill(text);
	}

	async press(...keys) {
		for (const key of keys) await this.page.keyboard.press(key);
	}

	/** Press several keys at once. */
	async chord(modifier, key) {
		await this.page.keyboard.down(modifier);
		await this.page.keyboard.press(key);
		await this.page.keyboard.up(modifier);
	}

	async order(prompt, model = "poet") {
		await this.choose(model);
		await this.fill("#prompt", prompt);
		await this.click("#serve");
	}

	/** Wait until an element says a text: all of it, or what matches. */
	see = (selector, text) => this.is(selector, text, (element) => element.innerText.trim());

	hidden = (selector) => this.is(selector, false, (element) => element.checkVisibility());

	attribute = (selector, name, value) => this.is(selector, value, (element, name) => element.getAttribute(name), name);

	value = (selector, value) => this.is(selector, value, (element) => element.value);

	style = (selector, name, value) => this.is(selector, value, (element, name) => getComputedStyle(element)[name], name);

	focused = (selector) => this.is(selector, true, (element) => element === document.activeElement);

	count = (selector, count) => this.#until(count, () => this.page.$$eval(selector, (found) => found.length), selector);

	/** Wait until what `read` finds of an element equals `expected`, or matches it. */
	is = (selector, expected, read, ...args) =>
		this.#until(expected, async () => ((await this.page.$(selector)) ? this.page.$eval(selector, read, ...args) : undefined), selector);

	async #until(expected, read, what) {
		const holds = (found) => (expected instanceof RegExp ? expected.test(found) : found === expected);
		const deadline = Date.now() + LIMIT;
		let found;
		do {
			found = await read();
			if (holds(found)) return;
			await new Promise(setImmediate);
		} while (Date.now() < deadline);
		throw new Error(`${what} is ${JSON.stringify(found)}, not ${expected}`);
	}
}
