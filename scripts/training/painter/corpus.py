"""What the painter learns from: Noto Color Emoji's pictures, and the Chinese and English words for them.

The pictures are the 136x128 colour bitmaps of Debian's package ``fonts-noto-color-emoji`` (SIL Open Font License 1.1),
taken from the installed font or fetched with ``apt-get download``; the names come from the PyPI package ``emoji``, to
which the table below adds everyday words. Neither the font nor its pictures are committed.
"""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import emoji
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / "data" / "painter"
PACKAGE = "fonts-noto-color-emoji"
FONT = Path("usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EM = 109  # the one size, in pixels per em, that the font's bitmaps have
BITMAP = (136, 128)
SIDE = 64  # of a picture, in pixels

# One thing a line: its picture, Chinese words | English words. The first of each
# are the names shown to people. Single characters that turn up inside other everyday words (心 in 开心) are left out.
_TABLE = """
🐱 猫 小猫 猫咪 猫脸 | cat kitten kitty
🐶 狗 小狗 狗狗 狗脸 | dog puppy
🐭 老鼠 小鼠 | mouse mice
🐹 仓鼠 | hamster
🐰 兔子 兔 小兔 兔子头 | rabbit bunny
🦊 狐狸 | fox foxes
🐻 熊 小熊 | bear
🐼 熊猫 大熊猫 | panda
🐨 考拉 树袋熊 | koala
🐯 老虎 虎 老虎头 | tiger
🦁 狮子 狮 | lion
🐮 牛 奶牛 母牛 奶牛头 | cow
🐷 猪 小猪 猪头 | pig piglet
🐸 青蛙 蛙 | frog
🐵 猴子 猴 | monkey
🦍 大猩猩 猩猩 | gorilla
🐔 鸡 母鸡 公鸡 | chicken hen rooster
🐥 小鸡 鸡宝宝 | chick
🐧 企鹅 | penguin
🐦 鸟 小鸟 | bird
🦆 鸭子 鸭 | duck
🦅 鹰 老鹰 | eagle
🦉 猫头鹰 | owl
🦇 蝙蝠 | bat
🐺 狼 | wolf wolves
🐴 马 马头 | horse pony ponies
🦄 独角兽 | unicorn
🐝 蜜蜂 蜂 | bee honeybee
🐛 毛毛虫 虫子 虫 | caterpillar bug
🦋 蝴蝶 | butterfly butterflies
🐌 蜗牛 | snail
🐞 瓢虫 | ladybug ladybird beetle
🐜 蚂蚁 | ant
🕷️ 蜘蛛 | spider
🦂 蝎子 | scorpion
🐢 乌龟 龟 海龟 | turtle tortoise
🐍 蛇 | snake
🦎 蜥蜴 | lizard
🦖 恐龙 霸王龙 | dinosaur t-rex
🐙 章鱼 | octopus octopuses
🦐 虾 | shrimp prawn
🦀 螃蟹 蟹 | crab
🐟 鱼 | fish
🐬 海豚 | dolphin
🐳 鲸鱼 鲸 | whale
🦈 鲨鱼 | shark
🐊 鳄鱼 | crocodile alligator
🦓 斑马 | zebra
🐘 大象 小象 头象 | elephant
🦛 河马 | hippopotamus hippo
🐪 骆驼 | camel
🦒 长颈鹿 | giraffe
🦘 袋鼠 | kangaroo
🐑 羊 绵羊 母羊 | sheep ewe lamb
🐐 山羊 | goat
🦌 鹿 小鹿 | deer
🦚 孔雀 | peacock
🦜 鹦鹉 | parrot
🦢 天鹅 | swan
🦩 火烈鸟 | flamingo flamingos
🕊️ 鸽子 鸽 | dove pigeon
🐿️ 松鼠 花栗鼠 | squirrel chipmunk
🦔 刺猬 | hedgehog
🐉 龙 | dragon
🌵 仙人掌 | cactus cacti cactuses
🎄 圣诞树 | christmas_tree
🌲 松树 | pine evergreen_tree fir
🌳 树 大树 树木 | tree
🌴 棕榈树 椰子树 | palm palm_tree
🍀 四叶草 | clover four_leaf_clover
🍁 枫叶 | maple_leaf maple
🍄 蘑菇 | mushroom
🌷 郁金香 | tulip
🌹 玫瑰 玫瑰花 | rose
🌺 芙蓉花 木槿 | hibiscus
🌸 樱花 花 花朵 | cherry_blossom flower
🌻 向日葵 | sunflower
💐 花束 | bouquet
🍇 葡萄 | grapes grape
🍉 西瓜 | watermelon
🍊 橘子 橙子 | tangerine orange mandarin
🍋 柠檬 | lemon
🍌 香蕉 | banana
🍍 菠萝 凤梨 | pineapple
🥭 芒果 | mango mangoes
🍎 苹果 红苹果 | apple red_apple
🍏 青苹果 绿苹果 | green_apple
🍐 梨 | pear
🍑 桃子 桃 | peach peaches
🍒 樱桃 | cherries cherry
🍓 草莓 | strawberry strawberries
🥝 猕猴桃 | kiwi kiwi_fruit
🍅 西红柿 番茄 | tomato tomatoes
🥥 椰子 | coconut
🥑 鳄梨 牛油果 | avocado
🍆 茄子 | eggplant aubergine
🥔 土豆 马铃薯 | potato potatoes
🥕 胡萝卜 萝卜 | carrot
🌽 玉米 | corn maize
🌶️ 辣椒 | pepper hot_pepper chili chilli
🥒 黄瓜 | cucumber
🥦 西兰花 | broccoli
🧄 大蒜 蒜 | garlic
🧅 洋葱 | onion
🍞 面包 | bread
🥐 羊角面包 牛角包 | croissant
🥞 煎饼 烙饼 | pancakes pancake
🧀 奶酪 芝士 | cheese
🍗 鸡腿 | drumstick chicken_leg poultry_leg
🍔 汉堡 汉堡包 | hamburger burger
🍟 薯条 | fries french_fries
🍕 披萨 比萨 | pizza
🌭 热狗 | hot_dog hotdog
🥪 三明治 | sandwich sandwiches
🥚 鸡蛋 蛋 | egg
🍳 煎蛋 | fried_egg
🥗 沙拉 | salad
🍿 爆米花 | popcorn
🍚 米饭 | rice
🍜 面条 拉面 | noodles noodle ramen
🍝 意大利面 意粉 | spaghetti pasta
🍣 寿司 | sushi
🥟 饺子 | dumpling
🥮 月饼 | mooncake moon_cake
🍦 冰淇淋 冰激凌 | ice_cream icecream
🍩 甜甜圈 | doughnut donut
🍪 饼干 曲奇 | cookie biscuit
🎂 蛋糕 生日蛋糕 | cake birthday_cake
🍫 巧克力 | chocolate
🍬 糖 糖果 | candy sweets candies
🍭 棒棒糖 | lollipop
🍯 蜂蜜 | honey
🥛 牛奶 | milk
☕ 咖啡 | coffee
🍵 茶 绿茶 热茶 | tea
🍷 葡萄酒 红酒 | wine
🍺 啤酒 | beer
🧋 珍珠奶茶 奶茶 | bubble_tea milk_tea
🚗 汽车 车 小汽车 | car automobile
🚕 出租车 | taxi cab
🚌 公交车 公共汽车 巴士 | bus buses
🚓 警车 | police_car
🚑 救护车 | ambulance
🚒 消防车 | fire_engine fire_truck
🚚 卡车 货车 | truck lorry lorries
🚜 拖拉机 | tractor
🏍️ 摩托车 | motorcycle motorbike
🚲 自行车 单车 | bicycle bike
🚂 蒸汽火车 火车头 | locomotive steam_train
🚆 火车 | train
✈️ 飞机 | airplane plane aeroplane
🚁 直升机 | helicopter
🚀 火箭 | rocket
🛸 飞碟 | ufo flying_saucer
⛵ 帆船 | sailboat
🚢 船 轮船 | ship boat
⚓ 锚 | anchor
🏠 房子 小屋 房屋 | house
🏰 城堡 | castle
⛺ 帐篷 | tent
🏥 医院 | hospital
⛪ 教堂 | church churches
🗼 东京塔 铁塔 塔 | tower tokyo_tower
🗽 自由女神 自由女神像 | statue_of_liberty
🎡 摩天轮 | ferris_wheel
🌋 火山 | volcano volcanoes
⛰️ 山 | mountain
🏝️ 海岛 岛 荒岛 | island
🌅 日出 | sunrise
🌊 海浪 浪花 波浪 大海 | wave ocean sea
☀️ 太阳 | sun
🌙 月亮 月牙 弯月 | moon crescent
⭐ 星星 星 | star
🪐 土星 行星 | saturn planet
🌍 地球 | earth globe
☁️ 云 白云 | cloud
🌧️ 雨 下雨 | rain
❄️ 雪花 雪 | snowflake snow
⛄ 雪人 | snowman snowmen
⚡ 闪电 | lightning
🌈 彩虹 | rainbow
🔥 火 火焰 | fire flame
💧 水滴 水珠 一滴水 | droplet water
☂️ 伞 雨伞 | umbrella
⚽ 足球 | soccer soccer_ball
🏀 篮球 | basketball
🏈 橄榄球 | american_football football
⚾ 棒球 | baseball
🎾 网球 | tennis tennis_ball
🏓 乒乓球 | ping_pong table_tennis
🏸 羽毛球 | badminton
🎯 靶子 飞镖 | target bullseye dart
🎲 骰子 | dice
🎮 游戏手柄 | gamepad video_game
🧸 玩具熊 泰迪熊 | teddy_bear teddy
🎈 气球 | balloon
🎁 礼物 | gift present
🏆 奖杯 | trophy trophies
👑 皇冠 王冠 | crown
💎 钻石 宝石 | diamond gem
💍 戒指 | ring
👓 眼镜 | glasses eyeglasses
👕 T恤 衬衫 衣服 | t-shirt shirt
👗 连衣裙 裙子 | dress dresses
👟 跑鞋 运动鞋 鞋子 | shoe sneaker running_shoe
🧣 围巾 | scarf scarves
🎩 礼帽 帽子 | hat top_hat
🎒 书包 背包 | backpack schoolbag
📱 手机 | phone mobile_phone smartphone
💻 笔记本电脑 电脑 | laptop computer
📺 电视 电视机 | television tv
📷 相机 照相机 | camera
☎️ 电话 | telephone
⌚ 手表 | watch watches
⏰ 闹钟 钟 | alarm_clock clock
💡 灯泡 灯 | bulb light_bulb lamp
🕯️ 蜡烛 | candle
🏮 灯笼 红灯笼 | lantern
🧧 红包 | red_envelope
📚 书 书本 | books book
✉️ 信封 信件 | envelope letter
✏️ 铅笔 | pencil
✂️ 剪刀 | scissors
🔑 钥匙 | key
🔒 锁 | lock
🔨 锤子 | hammer
🔭 望远镜 | telescope
🚪 门 | door
🪑 椅子 | chair
🛏️ 床 | bed
🧹 扫帚 | broom
🎸 吉他 | guitar
🎹 钢琴 | piano keyboard
🎻 小提琴 | violin fiddle
🥁 鼓 | drum
🎧 耳机 | headphones headphone
🔔 铃铛 | bell
💰 钱袋 钱 | money money_bag
💣 炸弹 | bomb
🏹 弓箭 弓 | bow bow_and_arrow
🤖 机器人 | robot
👽 外星人 | alien
👻 鬼 幽灵 | ghost
🎃 南瓜 南瓜灯 | pumpkin jack-o-lantern
🎅 圣诞老人 | santa santa_claus
😀 笑脸 | smiley grinning_face smile
😎 墨镜笑脸 | sunglasses
❤️ 红心 爱心 一颗心 颗心 心形 | heart red_heart
💙 蓝心 | blue_heart
👍 大拇指 点赞 竖大拇指 | thumbs_up
"""


@dataclass(frozen=True)
class Thing:
    """Something the painter knows: its emoji, and the Chinese and English words that mean it, lower case."""

    glyphs: tuple[str, ...]
    chinese: tuple[str, ...]
    english: tuple[str, ...]


def plural(word: str) -> str | None:
    """The regular English plural, None for what looks like one; that it may be no word ("sheeps") does no harm."""
    if word.endswith("s") and not word.endswith(("ss", "us")):
        return None
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def load_things() -> list[Thing]:
    """The table in its order, with the package's names where they are words that nothing else goes by."""
    rows: list[tuple[list[str], list[str], list[str]]] = []
    for line in _TABLE.strip().splitlines():
        pictures, _, words = line.partition(" ")
        first, _, second = words.lower().partition("|")
        english = [word.replace("_", " ") for word in second.split()]
        rows.append(([char for char in pictures if char != "\ufe0f"], first.split(), english))
    taken = {word for _, chinese, english in rows for word in chinese + english}
    emoji.config.load_language("zh")
    data = {key.replace("\ufe0f", ""): value for key, value in emoji.EMOJI_DATA.items()}
    things = []
    for glyphs, chinese, english in rows:
        for glyph in glyphs:
            entry = data[glyph]
            names = [entry["en"], *entry.get("alias", ())]
            for name in (text.strip(":").replace("_", " ").lower() for text in names):
                letters = name.replace(" ", "")
                if name not in taken and letters.isascii() and letters.isalpha() and name.count(" ") <= 1:
                    taken.add(name)
                    english.append(name)
            name = entry["zh"].strip(":").lower()
            if name not in taken and len(name) > 1 and all(_is_han(char) for char in name):
                taken.add(name)
                chinese.append(name)
        for word in list(english):
            many = plural(word)
            if many is not None and many not in taken:
                taken.add(many)
                english.append(many)
        things.append(Thing(tuple(glyphs), tuple(chinese), tuple(english)))
    return things


def _is_han(char: str) -> bool:
    return unicodedata.name(char, "").startswith("CJK UNIFIED")


def fetch(font: Path | None) -> Path:
    """The font file: the one given, the installed one, an earlier download, or a fresh one from Debian's mirror."""
    for known in (font, Path("/") / FONT, CACHE / FONT):
        if known is not None and known.exists():
            return known
    if shutil.which("apt-get") is None:
        raise SystemExit(f"no apt-get here: unpack Debian's {PACKAGE} elsewhere and name its font file with --font")
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", PACKAGE], cwd=CACHE, check=True)
    archive = next(CACHE.glob(f"{PACKAGE}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=CACHE, check=True)
    return CACHE / FONT


def draw(glyph: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji on white, 64x64, RGB."""
    large = Image.new("RGBA", BITMAP, (255, 255, 255, 255))
    left, top, _, _ = font.getbbox(glyph)
    ImageDraw.Draw(large).text((-left, -top), glyph, font=font, embedded_color=True)
    width, height = SIDE, round(SIDE * BITMAP[1] / BITMAP[0])
    picture = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    small = large.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    picture.paste(small, (0, (SIDE - height) // 2))
    return picture


def load_pictures(things: list[Thing], font_file: Path) -> tuple[Tensor, Tensor]:
    """Every picture, (N, 3, 64, 64) in -1..1, and the index of the thing that each one shows, (N,)."""
    font = ImageFont.truetype(str(font_file), EM)
    pixels = [np.asarray(draw(glyph, font)) for thing in things for glyph in thing.glyphs]
    shown = [index for index, thing in enumerate(things) for _ in thing.glyphs]
    pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures.contiguous(), torch.tensor(shown)
