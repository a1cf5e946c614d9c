# ruff: noqa: RUF001 - Chinese has commas and colons of its own
"""The page's words in English and Chinese, and which of them a browser asks for."""

from datetime import UTC, datetime

from pipeline.errors import Code
from producer.report import wording
from producer.report.meanings import meaning

LANGUAGES = {"en": "English", "zh": "中文"}
TAGS = {"en": "en", "zh": "zh-Hans"}
"""What stands in the page's `lang`."""

CHINESE: dict[str, str] = {
    "Live": "实时页面",
    "Skip to the content": "跳到内容",
    "Parts of the page": "页面导航",
    "Language": "语言",
    "Runs": "运行",
    "Workers": "工作进程",
    "Gallery": "结果",
    "Failures": "失败",
    "Facts": "信息",
    "Now": "当前状态",
    "This page only reads; it can start, stop and change nothing.": "此页面只读：不能启动、停止或更改任何内容。",
    "No connection; trying again.": "连接中断，正在重试。",
    "images/s": "张/秒",
    "images/s now": "当前 张/秒",
    "wait for the network": "等待抠图网络",
    "wait for encoding": "等待编码",
    "workers alive": "存活的工作进程",
    "Nobody keeps house: runs do not move. Start": "没有进程负责日常维护，运行无法推进。请启动",
    "There are no runs yet. Start one with": "还没有运行。用以下命令启动：",
    "The newest {shown} of {known} are shown.": "显示最新的 {shown} 个，共 {known} 个。",
    "listed": "列出",
    "done": "完成",
    "skipped": "跳过",
    "failed": "失败",
    "pending": "未完成",
    "{finished} of {listed}": "{finished} / {listed}",
    "{left} left": "剩余 {left}",
    "nothing has moved for {still}": "已有 {still} 没有进展",
    "listing": "列出中",
    "working": "进行中",
    "closing": "收尾中",
    "finished": "已完成",
    "cancelled": "已取消",
    "incomplete": "不完整",
    "No worker has been heard yet.": "尚未收到工作进程的消息。",
    "No worker has been heard. Start": "没有收到任何工作进程的消息。请启动",
    "and": "和",
    "worker": "工作进程",
    "role": "角色",
    "network": "网络",
    "encoding": "编码",
    "engine": "引擎",
    "works on": "处理中",
    "messages since its start": "启动以来的消息数",
    "state": "状态",
    "alive": "存活",
    "silent": "无响应",
    "Every worker with its state, role, engine and load": "各工作进程的状态、角色、引擎和负载",
    "From": "从",
    "to": "到",
    "time left": "剩余时间",
    "duration": "用时",
    "running for": "已运行",
    "model": "模型",
    "recipe": "输出格式",
    "started": "开始时间",
    "last move": "最近进展",
    "sweep": "定时任务",
    "tried again": "重试次数",
    "run": "运行",
    "source": "来源",
    "target": "目标",
    "reports": "报告",
    "full report": "完整报告",
    "to do": "待处理",
    "in work": "处理中",
    "in the queue {queue}": "在队列 {queue} 中",
    "to be encoded": "待编码",
    "Where unfinished images are": "未完成的图片在哪里",
    "Drag across a picture: original on the left, cutout on the right.": "在图片上拖动：左边是原图，右边是抠图结果。",
    "The newest {shown} of {known}.": "最新 {shown} 张，共 {known} 张。",
    "Background": "背景",
    "Checker": "棋盘格",
    "White": "白色",
    "Black": "黑色",
    "original": "原图",
    "cutout": "抠图结果",
    "Original on the left, cutout on the right": "左边是原图，右边是抠图结果",
    "No image is finished yet.": "还没有完成的图片。",
    "This run made no cutout, so there is nothing to show.": "此次运行没有生成抠图结果。",
    "The results cannot be read now: {reason}": "暂时无法读取结果：{reason}",
    "No image failed.": "没有失败的图片。",
    "The newest {shown} of {known} are shown; all of them:": "显示最新的 {shown} 个，共 {known} 个；全部：",
    "Key": "键",
    "What": "问题",
    "Reason": "原因",
    "Every failed image: its key, what went wrong, and the reason": "失败的图片：键、问题和原因",
    "All runs": "全部运行",
    "There is no such page.": "没有这个页面。",
    "A newer Mattemill has started this run: this page has to be upgraded to show it.": (
        "这个运行由更新版本的 Mattemill 启动，请先升级本页面。"
    ),
    "The run is not known, or its time in the ledger is over.": "没有这个运行，或其记录已过期。",
    "Redis does not answer. The page tries again by itself.": "Redis 没有响应，页面会自动重试。",
    "Something went wrong here; the log says what.": "此处出错，详情见日志。",
    "The page asks for a user and a password.": "此页面需要用户名和密码。",
    "This address is not served here.": "此地址不在这里提供服务。",
    "Only reading is possible here.": "此处只能读取。",
    **{
        Code.NOT_FOUND: "找不到对象",
        Code.ACCESS_DENIED: "没有权限",
        Code.EMPTY_OBJECT: "空对象",
        Code.NOT_AN_IMAGE: "不是图片",
        Code.UNSUPPORTED_FORMAT: "不支持的格式",
        Code.TRUNCATED: "文件不完整",
        Code.TOO_LARGE: "过大",
        Code.CHANGED_WHILE_PROCESSING: "处理期间被更改",
        Code.ENGINE_ERROR: "引擎出错",
        Code.ENCODE_ERROR: "编码出错",
        Code.UPLOAD_FAILED: "上传失败",
        Code.OUTPUT_CONFLICT: "输出冲突",
        Code.ATTEMPTS_EXHAUSTED: "重试次数用尽",
        Code.CANCELLED: "已取消",
        "empty": "什么都没留下",
        "full": "什么都没去掉",
        "speckle": "有零散碎块",
        "cut_by_frame": "主体被边框截断",
    },
}


def say(language: str, text: str, **values: object) -> str:
    """A text of this page in a language, with `values` put in.

    Raises:
        KeyError: when there is no Chinese for it.
    """
    return (CHINESE[text] if language == "zh" else text).format(**values)


def code_words(language: str, code: str) -> str:
    """What a failure code or a flag means; one of another version is its own meaning."""
    return CHINESE.get(code, code) if language == "zh" else meaning(code)


def duration(language: str, seconds: float) -> str:
    """Write a duration given in seconds: `8.4 s`, `4 min 12 s`, `3 h 5 min`, in Chinese `4 分 12 秒`."""
    text = wording.duration(seconds)
    if language == "zh":
        for unit, word in (("min", "分"), ("h", "小时"), ("s", "秒")):
            text = text.replace(f"\u00a0{unit}", f"\u00a0{word}")
    return text


def moment(seconds: float) -> str:
    """Write a time given in seconds since 1970: `2026-11-24 04:14:09 UTC`."""
    return wording.moment(datetime.fromtimestamp(seconds, UTC))


def choose(accepted: str) -> str:
    """The language that an Accept-Language header likes best; English when it names neither."""
    best, weight = "en", 0.0
    for part in accepted[:1000].split(","):
        tag, _, quality = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        try:
            wanted = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if language in LANGUAGES and wanted > weight:
            best, weight = language, wanted
    return best
