// An order becomes a job, a job becomes a result, and results are kept.
import { blobOf } from "./browser/blob.js";
import { copyResult, copyText } from "./browser/carry.js";
import { always, tab } from "./browser/storage.js";
import { toast } from "./browser/toast.js";
import { About } from "./order/about.js";
import { after } from "./order/body.js";
import { OrderForm, randomSeed } from "./order/form.js";
import { Menu } from "./order/menu.js";
import { addressOf, shared } from "./order/share.js";
import { Gallery } from "./results/gallery.js";
import { Job } from "./server/job.js";
import { learn, modelOf } from "./server/models.js";
import { Stage } from "./stage/stage.js";
import { remember, speak, t } from "./texts/texts.js";

const element = (id) => document.getElementById(id);
const SLOW = 5_000; // an order that takes so long is worth a notification
const files = () => import("./on_demand/files.js");
let loading;
const line = () => (loading ??= import("./on_demand/line.js").finally(() => (loading = null))); // in order

const form = element("order");
const prompt = element("prompt");
const menu = new Menu();
const orders = new OrderForm(menu);
const stage = new Stage(orders.label);
let job = null;

new About(menu, (example, now) => {
	prompt.value = example;
	prompt.focus();
	menu.warm();
	if (now) form.requestSubmit();
});

async function run(next) {
	if (job) {
		const { add } = await line();
		if (job) return add(next); // it may have ended
	}
	job = next;
	const { order } = job;
	const followed = job.id === null;
	setTimeout(() => (element("notify").hidden = job !== next || globalThis.Notification?.permission !== "default"), SLOW);
	stage.begin(order, menu.kindOf(order.model));
	try {
		await job.follow({
			status: (status) => {
				menu.tell(order.model, status.state === "running" ? "ready" : status.state);
				stage.status(status);
			},
			reasoning: (piece) => stage.reasoning(piece),
			token: (token) => stage.token(token),
			progress: (progress) => stage.progress(progress),
			preview: (preview) => stage.preview(preview),
			result: (document) => serve(document, order, followed),
			lost: () => stage.lost(true),
			found: () => stage.lost(false),
		});
		if (element("stage").hasAttribute("data-busy")) stage.stopped(); // given up here
	} catch (error) {
		end(error);
	} finally {
		job = null;
		element("notify").hidden = true;
		if (element("line").children.length) run((await line()).next());
	}
}

/** Whoever asks from far below the stage sees what becomes of it. */
function ask(order) {
	const waits = job;
	run(new Job(order));
	if (waits) return;
	const { top } = element("stage").getBoundingClientRect();
	if (top < 0 || top > innerHeight / 2) element("stage").scrollIntoView();
	if (element("gallery").matches(":focus-within")) element("stop").focus({ preventScroll: true });
}

function end(error) {
	if (error.slug === "cancelled") stage.stopped();
	else {
		stage.fail(error);
		const [wrong] = error.problem?.errors ?? [];
		if (wrong) orders.mark(wrong);
	}
}

async function serve(answer, order, followed) {
	const result = {
		id: answer.id,
		at: Date.now(),
		model: answer.model,
		kind: answer.kind,
		order,
		...stage.times(answer, followed),
		text: answer.text,
		reasoning: answer.reasoning_content,
		finish: answer.finish_reason,
		tokens: answer.usage?.completion_tokens,
		steps: answer.steps,
		understood: answer.understood,
		pictures: answer.images?.map(({ data, media_type, width, height }) => ({ blob: blobOf(data, media_type), width, height })),
	};
	menu.tell(order.model, "ready");
	stage.done(result);
	if (document.hidden) {
		document.title = `✓ ${t("state.done")} · Shangcai`;
		if (globalThis.Notification?.permission === "granted") new Notification(t("state.done"), { body: order.prompt });
	}
	if (!modelOf(order.model).summary) learn(); // it may have said meanwhile what it is
	if (order.history) {
		orders.converse(after(result));
		if (prompt.value === order.prompt) prompt.value = "";
	}
	await gallery.add(result);
}

function show(result) {
	if (job) {
		toast(t("busy"));
		return;
	}
	const before = orders.order;
	stage.open(result);
	orders.fill(result.order);
	if (before.prompt && before.prompt !== result.order.prompt) toast(t("filled"), () => orders.fill(before));
	element("stage").scrollIntoView({ block: "nearest" });
}

const acts = {
	copy: copyResult,
	download: async (result) => (await files()).download(result),
	downloadAll: async (results) => (await files()).downloadAll(results),
	view: async (result) => (await import("./on_demand/viewer.js")).view(result),
	again: ({ order }) => ask(order),
	another: ({ order }) => ask({ ...order, seed: randomSeed() }),
	share: ({ order }) => copyText(addressOf(order), t("shared")),
	reply: (result) => {
		menu.choose(result.order.model);
		orders.converse(after(result));
		prompt.value = "";
		prompt.focus();
	},
};

form.addEventListener("submit", (event) => {
	event.preventDefault();
	if (orders.check()) ask(orders.order);
});
form.addEventListener("input", () => prompt.value.trim() && menu.warm());
form.addEventListener("keydown", (event) => {
	if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) form.requestSubmit();
});
element("stop").addEventListener("click", () => {
	job?.stop();
	stage.stop();
});
element("notify").addEventListener("click", async () => {
	element("stop").focus();
	element("notify").hidden = true;
	await Notification.requestPermission();
});
element("retry").addEventListener("click", () => ask(stage.order));
element("actions").addEventListener("click", ({ target }) => acts[target.dataset.act]?.(stage.result));
addEventListener("unhandledrejection", ({ reason }) => toast(t("problem.unexpected", { detail: reason.message })));
for (const id of ["upright", "actual"]) {
	const toggle = element(id);
	const set = (on) => {
		toggle.ariaPressed = on;
		element("stage").toggleAttribute(`data-${id}`, on);
		return on;
	};
	toggle.addEventListener("click", () => always.set(id, set(toggle.ariaPressed !== "true")));
	set(always.get(id) === "true");
}
element("language").addEventListener("click", async (event) => {
	event.preventDefault();
	await speak(t("other"));
	element("language").lang = t("other");
});
element("theme").addEventListener("click", () => {
	const { dataset } = document.documentElement;
	const dark = dataset.theme === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : dataset.theme === "dark";
	remember("theme", (dataset.theme = dark ? "light" : "dark"));
});
document.addEventListener("visibilitychange", () => document.hidden || (document.title = "上菜 Shangcai"));
if (/Mac|iP/.test(navigator.platform)) form.querySelector("kbd").textContent = "⌘ ↵";

const gallery = new Gallery({ ...acts, show });
gallery.open();
learn();
const asked = shared();
if (asked) orders.fill({ model: menu.model, ...asked });
const kept = Job.kept();
if (kept && menu.kindOf(kept.order.model)) {
	orders.fill(kept.order);
	run(kept);
}
if (tab.read("line")?.length) {
	const { restore, next } = await line();
	restore();
	if (!job) run(next());
}
