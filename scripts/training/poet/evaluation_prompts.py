"""What the poet is asked when it is measured."""

from __future__ import annotations

# As people would ask; the model is expected to answer each with a poem, whatever it makes of the request.
_PROMPTS = """写一首关于CPU的现代诗|春天的雨|Write a poem about the moon|写一首七言绝句,题目是秋江
a short poem about autumn wine|我想家了|tell me about mountains|写一首五言律诗，描写边塞
请以“思念”为题写一首诗|月亮|秋|今天下雨了，心情不好|写一首關於雲的七言律詩|春江花月夜|cats|I miss my hometown
Write a five-character quatrain about snow|给我写首诗送给妈妈|帮我写一首生日诗|程序员加班到深夜|人工智能
What is the capital of France?|hello|你好|🌙🍷|中秋节快乐|送朋友去北京|A love poem, please|write something sad
黄鹤楼|西湖的荷花|haiku about an old pond|再来一首|讲一个笑话|1+1=?|如何学习Python|the sea at night
lonely traveller on a boat|战争与和平|写一首关于失眠的诗|五绝 竹|七律 登高|绝句|escribe un poema sobre la luna
月についての詩|시를 써 주세요|قصيدة عن البحر|<b>moon</b> & {{ 7*7 }}|...|梅花|寺庙的钟声|杨柳依依
大雁南飞|孤舟|窗外的雪|my dog died yesterday|Describe a waterfall in the style of Li Bai|登山|春眠不觉晓
时间都去哪儿了"""

PROMPTS = _PROMPTS.replace("\n", "|").split("|")

# Topic asked for -> characters of which one must occur in the poem.
TOPICS = {
    "月": "月",
    "雨": "雨",
    "秋": "秋",
    "酒": "酒",
    "山": "山",
    "江": "江",
    "春": "春",
    "花": "花",
    "雪": "雪",
    "风": "风",
    "柳": "柳",
    "梅": "梅",
    "雁": "雁",
    "舟": "舟",
    "夜": "夜",
    "故乡": "乡",
    "离别": "别",
    "竹": "竹",
    "寺": "寺",
    "边塞": "塞",
}
ENGLISH_TOPICS = {
    "moon": "月",
    "rain": "雨",
    "autumn": "秋",
    "wine": "酒",
    "mountains": "山",
    "rivers": "江",
    "spring": "春",
    "flowers": "花",
    "snow": "雪",
    "wind": "风",
}
