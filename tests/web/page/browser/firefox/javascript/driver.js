// Runs flows in one Firefox. A line of JSON asks for a flow; a line of JSON says null, or what went wrong.
// Arguments: the module of puppeteer-core, Firefox, and its preferences as JSON.
import { createInterface } from "node:readline";
import * as orders from "./flows/orders.js";
import * as results from "./flows/results.js";
import * as settings from "./flows/settings.js";
import { Model } from "./model.js";
import { Screen } from "./screen.js";

const [puppeteer, executablePath, preferences] = process.argv.slice(2);
const flows = { ...orders, ...results, ...settings };

async function run(browser, { flow, url, control }) {
	const context = await browser.createBrowserContext();
	const complaints = [];
	try {
		const page = await context.newPage();
		page.on("pageerror", (error) => complaints.push(error.message)); // with what the policy of the page forbids
		page.on("console", (message) => ["error", "warn"].includes(message.type()) && complaints.push(message.text()));
		await page.setViewport({ width: 1280, height: 900 });
		const screen = new Screen(page, url);
		await screen.open();
		await flows[flow]({ screen, page, complaints, poet: new Model(control, "poet"), painter: new Model(control, "painter") });
		return complaints.length ? complaints.join("\n") : null;
	} catch (error) {
		return [error.stack, ...complaints].join("\n");
	} finally {
		await context.close();
	}
}

const { default: browsers } = await import(puppeteer);
const browser = await browsers.launch({
	browser: "firefox",
	executablePath,
	extraPrefsFirefox: JSON.parse(preferences),
});
for await (const line of createInterface({ input: process.stdin })) {
	console.log(JSON.stringify(await run(browser, JSON.parse(line))));
}
await browser.close();
