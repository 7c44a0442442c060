"""Whether the python runtime serves a model: a profile enters, an obstacle in words leaves, "" for none."""

from __future__ import annotations

from modelium.brain.runtimes.support import Ending, Support, in_float32, no_backend
from modelium.sizes import MIB
from modelium.values import Capabilities, ModelProfile, Runtime, Task, WeightFormat

# transformers 5.19 lists all these among the models that write about pictures. For these it has no image processor but one
# that needs torchvision; vLLM serves most of them.
NEEDS_TORCHVISION = frozenset(
    {
        "Cohere2VisionForConditionalGeneration",
        "Gemma4UnifiedForConditionalGeneration",
        "InklingForConditionalGeneration",
        "Kimi_K25ForConditionalGeneration",
        "Lfm2VlForConditionalGeneration",
        "Llama4ForConditionalGeneration",
        "MiniMaxM3SparseForConditionalGeneration",
        "MuseGlimmerForConditionalGeneration",
        "NemotronH_Omni_Reasoning_V3",
        "PPFormulaNetForConditionalGeneration",
        "PerceptionLMForConditionalGeneration",
        "Phi4MultimodalForCausalLM",
        "Step3p7ForConditionalGeneration",
    }
)
_CLASSIFIES = "ForSequenceClassification"  # the head with which the python runtime ranks
# And these are not about pictures, or not only.
OTHERWISE = {
    "EvollaForProteinText2Text": "it reads proteins, and the python runtime has no input for them",
    "InstructBlipVideoForConditionalGeneration": "it reads videos, and the python runtime has no input for them",
    "PI0ForConditionalGeneration": "it moves robots: it generates no text",
    "UdopForConditionalGeneration": "it reads words with their places on a page, and the python runtime has no input for them",
}


def can_rank(profile: ModelProfile) -> bool:
    """False for a ranker whose scores are neither those of a classification head nor of a decoder's next word."""
    return profile.task is not Task.TEXT_RANKING or profile.ranks_by_words or profile.architecture.endswith(_CLASSIFIES)


def find_obstacle(profile: ModelProfile, *, by_hand: bool = False) -> str:
    """What keeps the python runtime from serving ``profile``, the first of these:

    1. It does none of the tasks that this runtime has: a bare graph, a table, an application …
    2. Its weights are of a kind that transformers does not read here.
    3. transformers does not know the architecture.
    4. It is said to write about pictures, but its processor wants what is not there.

    Who chose python ``by_hand`` may have installed what is missing: 4 does not hold then.
    """
    if profile.task is Task.TENSORS:  # 1
        return "the python runtime serves transformers' tasks, this is a bare graph"
    if profile.task.row.only_ray:
        return f"the python runtime does not do {profile.task}"
    if not can_rank(profile):
        how = "sentence-transformers' LogitScore, and a chat template with the roles query and document"
        return f"the python runtime ranks with a decoder whose files say how ({how}), and this {profile.architecture}'s do not"
    if profile.weight_format is WeightFormat.GGUF:  # 2
        return "the python runtime does not read GGUF files: drop the model's safetensors folder"
    if profile.library == "vllm":  # 3
        return f"transformers does not know {profile.architecture}"
    if profile.quantization is not None:  # 2
        return f"the python runtime does not read {profile.quantization} weights"
    if profile.task is not Task.IMAGE_TEXT_TO_TEXT or by_hand:
        return ""
    if profile.architecture in NEEDS_TORCHVISION:  # 4
        return "its images are prepared with torchvision, which is not in the model runtime"
    return OTHERWISE.get(profile.architecture, "")


def _find_obstacle_here(profile: ModelProfile, capabilities: Capabilities, by_hand: bool) -> str:
    return find_obstacle(profile, by_hand=by_hand) or no_backend(Runtime.PYTHON, capabilities)


SUPPORT = Support(
    find_obstacle=_find_obstacle_here,
    process_bytes=240 * MIB,
    born_bytes=44 * MIB,
    weight_bytes=in_float32,
    is_born=True,
    ending=Ending.KILLED,
)
