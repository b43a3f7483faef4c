// The texts of what is on demand, by their languages.
const TEXTS = {
	en: {
		"key": "Key",
		"key.title": "Your key, please",
		"key.why": "This server works for those who have a key. It stays in this browser, and is sent to this server only.",
		"key.refused": "This key is not valid here, or no longer. Is there another one?",
		"key.give": "Go on",
		"key.not": "Not now",
		"words": "What it knows",
		"close": "Close",
		"view.back": "The one before",
		"view.on": "The next one",
		"view.compare": "Compare with another",
		"view.alone": "Only this one",
		"line.leave": "Leave the line",
		"notify": "Notify me",
	},
	zh: {
		"key": "密钥",
		"key.title": "请出示密钥",
		"key.why": "此服务器只为持有密钥的人服务。密钥只留在这个浏览器中，也只发给这台服务器。",
		"key.refused": "这个密钥不被接受，或已失效。还有别的吗？",
		"key.give": "继续",
		"key.not": "以后再说",
		"words": "它认得的",
		"close": "关闭",
		"view.back": "上一份",
		"view.on": "下一份",
		"view.compare": "与另一份比较",
		"view.alone": "只看这一份",
		"line.leave": "不等了",
		"notify": "上桌时叫我",
	},
};

export const say = (key) => TEXTS[document.documentElement.dataset.lang][key];
