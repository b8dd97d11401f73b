# ruff: noqa: RUF001  Chinese punctuation is meant
"""The words of a release's page and of an answer to an outsider, in English and Chinese."""

from collections.abc import Mapping
from typing import Final

Words = Mapping[str, str]

_EN: Final[Words] = {
    "language": "en",
    "title": "Released statistic",
    "notice": "Every number below carries noise that protects single patients. It is exact in law:"
    " with 95 % probability the interval covers the count that the noise was added to.",
    "values": "Values with 95 % intervals",
    "figures": "Figures made from them",
    "sums": "Sums",
    "cell": "value",
    "shown": "shown",
    "interval": "95 % interval",
    "released": "released integer",
    "grey": "greyed: the interval is wider than half the number",
    "not_reported": "not reported",
    "why_not_reported": "Not reported: the denominator may be 0.",
    "rank": "rank error, not exceeded with 95 %",
    "grades": "By grade of data",
    "grades_words": "Every grade is measured with noise of its own; a patient stands in one grade"
    " and loses what that grade costs. The values above are the sums.",
    "grade": "grade",
    "question": "What was asked",
    "dataset": "data set, epoch",
    "purpose": "purpose",
    "arrivals": "arrivals",
    "schedule": "schedule",
    "estimand": "counts",
    "snapshot": "snapshot",
    "policy": "policy",
    "fingerprint": "fingerprint",
    "noise": "noise",
    "price": "What it cost",
    "cost": "this release",
    "left": "left",
    "not_gate": "Other views of the spend (not the gate)",
    "truncation": "What is not covered",
    "truncation_words": "At most {c} studies of a patient count. The interval covers noise, not"
    " what this bound leaves out; patients who reached it:",
    "unprotected": "Not protected",
    "verify": "Check it yourself, offline",
    "verify_words": "The file beside this page holds the signed document and the proof that the"
    " hospital's log contains it:",
    "study": "studies: each of a patient's first c counts once",
    "patient": "patients: the studies of a patient share one weight",
    "once": "patients: each cell counts a patient at most once",
}

_ZH: Final[Words] = {
    "language": "zh-Hans",
    "title": "已发布的统计量",
    "notice": "以下每个数字都加入了保护单个患者的噪声。噪声分布精确已知：区间以 95% 的概率"
    "覆盖加噪前的计数。",
    "values": "数值与 95% 区间",
    "figures": "由其推导的指标",
    "sums": "求和项",
    "cell": "数值",
    "shown": "显示值",
    "interval": "95% 区间",
    "released": "发布的整数",
    "grey": "灰色：区间宽度超过数值的一半",
    "not_reported": "不报告",
    "why_not_reported": "不报告：分母可能为 0。",
    "rank": "秩误差（95% 不超过）",
    "grades": "按数据分级",
    "grades_words": "每个级别使用各自的噪声；每位患者只属于一个级别，其隐私开销为该级别的开销。"
    "以上数值为各级别之和。",
    "grade": "级别",
    "question": "发布内容",
    "dataset": "数据集与周期",
    "purpose": "目的",
    "arrivals": "到达时间",
    "schedule": "发布方式",
    "estimand": "计数单位",
    "snapshot": "快照",
    "policy": "策略",
    "fingerprint": "指纹",
    "noise": "噪声",
    "price": "隐私开销",
    "cost": "本次发布",
    "left": "剩余",
    "not_gate": "其他核算方式（不作为准入依据）",
    "truncation": "未覆盖的部分",
    "truncation_words": "每位患者最多计入 {c} 项检查。区间只覆盖噪声，不覆盖该上限造成的遗漏；"
    "达到上限的患者数：",
    "unprotected": "不受保护的内容",
    "verify": "离线自行核验",
    "verify_words": "随附文件包含已签名的文档，以及医院证据日志收录该文档的证明：",
    "study": "检查：每位患者的前 c 项检查各计一次",
    "patient": "患者：同一患者的检查共享一个权重",
    "once": "患者：每个单元格中每位患者最多计一次",
}

WORDS: Final[Mapping[str, Words]] = {"en": _EN, "zh": _ZH}

UNPROTECTED_ZH: Final[Words] = {
    "public-quantities": "键、界限、网格、c、时间表、价格与策略均为公开信息",
    "root": "对盒子上拥有 root 权限者不提供任何保护",
    "exact-results": "放射科医生与患者病历中为精确结果",
    "truncation": "每位患者超过 c 项的检查未计入，区间不覆盖这部分",
    "several-hospitals": "在多家医院就诊的患者在每家医院分别产生隐私开销",
    "relatives": "家族共有的事实可能由任何成员透露",
    "timing": "抽样所需时间仅由固定答复时刻掩盖",
}
