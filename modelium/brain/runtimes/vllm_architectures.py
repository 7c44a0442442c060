"""What vLLM 0.32.0 serves: its own registry, as facts.

Written by scripts/record_vllm_architectures.py (``make generate``); don't edit. TEXT and MULTIMODAL generate with code of
vLLM's own, TRANSFORMERS and TRANSFORMERS_MULTIMODAL with transformers' code in vLLM's engine, POOLING gives vectors and scores.
LORA: those that take LoRA adapters. CONFIGS: model types that it reads without code from the folder. DROPPED: architecture,
last version that had it; PLUGINS: architecture, its package now.
"""

# ruff: noqa: SIM905

from __future__ import annotations

VLLM_VERSION = "0.32.0"

TEXT: frozenset[str] = frozenset(
    """
    AXK1ForCausalLM AfmoeForCausalLM ApertusForCausalLM BailingMoeForCausalLM BailingMoeV2ForCausalLM BailingMoeV2_5ForCausalLM
    BailingMoeV3ForCausalLM BloomForCausalLM ChatGLMForConditionalGeneration ChatGLMModel Cohere2ForCausalLM
    Cohere2MoeForCausalLM CohereForCausalLM DbrxForCausalLM DeciLMForCausalLM DeepseekForCausalLM DeepseekV2ForCausalLM
    DeepseekV32ForCausalLM DeepseekV3ForCausalLM DeepseekV4ForCausalLM Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM
    Exaone4ForCausalLM ExaoneForCausalLM ExaoneMoEForCausalLM ExaoneMoeForCausalLM FalconForCausalLM FalconH1ForCausalLM
    FalconMambaForCausalLM GPT2LMHeadModel GPTJForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma3nForCausalLM
    Gemma4ForCausalLM GemmaForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM Glm4MoeLiteForCausalLM Glm5NextForCausalLM
    GlmMoeDsaForCausalLM GptOssForCausalLM GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeHybridForCausalLM
    GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM GraniteSWAForCausalLM HCXVisionV2ForCausalLM HYV3ForCausalLM
    HYV4ForCausalLM HrmTextForCausalLM HyperCLOVAXForCausalLM IQuestCoderForCausalLM IQuestLoopCoderForCausalLM
    InklingForCausalLM InklingForConditionalGeneration InternLM2ForCausalLM InternLM3ForCausalLM JambaForCausalLM
    K2HorizonForCausalLM KimiLinearForCausalLM LLaMAForCausalLM LagunaForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM
    Llama4ForCausalLM LlamaForCausalLM LongcatFlashForCausalLM LongcatFlashNgramForCausalLM Mamba2ForCausalLM MambaForCausalLM
    MiMoForCausalLM MiMoV2FlashForCausalLM MiMoV2ForCausalLM MiniCPM3ForCausalLM MiniCPMForCausalLM MiniMaxM2ForCausalLM
    MiniMaxM3SparseForCausalLM Ministral3ForCausalLM MistralForCausalLM MistralLarge3ForCausalLM MixtralForCausalLM
    MuseGlimmerForCausalLM NemotronForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM OPTForCausalLM
    OlmoHybridForCausalLM OlmoeForCausalLM OrionForCausalLM PanguEmbeddedForCausalLM PanguProMoEV2ForCausalLM
    PanguUltraMoEForCausalLM Param2MoEForCausalLM Phi3ForCausalLM PhiMoEForCausalLM Plamo3ForCausalLM Qwen2ForCausalLM
    Qwen2MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM Qwen3NextForCausalLM Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM
    Qwen4ExpForCausalLM Rnj1ForCausalLM SarvamMLAForCausalLM SarvamMoEForCausalLM SolarForCausalLM StableLmForCausalLM
    Step1ForCausalLM Step3TextForCausalLM Step3p5ForCausalLM TeleChat2ForCausalLM TeleChat3ForCausalLM TeleFLMForCausalLM
    Zamba2ForCausalLM
    """.split()
)

MULTIMODAL: frozenset[str] = frozenset(
    """
    AriaForConditionalGeneration AudioFlamingo3ForConditionalGeneration BagelForConditionalGeneration
    BailingMoeV3VLForConditionalGeneration BeeForConditionalGeneration Blip2ForConditionalGeneration
    Cohere2VisionForConditionalGeneration CohereAsrForConditionalGeneration CohereCompassForConditionalGeneration
    Cosmos3EdgeForConditionalGeneration Cosmos3ForConditionalGeneration DeepseekOCR2ForCausalLM DeepseekOCRForCausalLM
    DeepseekV41ForCausalLM DeepseekV4ForConditionalGeneration DeepseekVLV2ForCausalLM DiffusionGemmaForBlockDiffusion
    Dots3NoteForCausalLM DotsOCRForCausalLM Eagle2_5_VLForConditionalGeneration Ernie4_5_VLMoeForConditionalGeneration
    Exaone4_5_ForConditionalGeneration FireRedASR2ForConditionalGeneration FunASRForConditionalGeneration
    FunAudioChatForConditionalGeneration GLM4VForCausalLM Gemma3ForConditionalGeneration Gemma3nForConditionalGeneration
    Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration Glm4vForConditionalGeneration
    Glm4vMoeForConditionalGeneration Glm5NextForConditionalGeneration GlmAsrForConditionalGeneration
    GlmOcrForConditionalGeneration Granite4VisionForConditionalGeneration GraniteSpeechForConditionalGeneration
    GraniteSpeechPlusForConditionalGeneration H2OVLChatModel HfMoondream Idefics3ForConditionalGeneration
    InternS1ForConditionalGeneration InternS1ProForConditionalGeneration InternS2MobiusForConditionalGeneration
    InternS2PreviewForConditionalGeneration InternVLChatModel InternVLForConditionalGeneration IsaacForConditionalGeneration
    KananaVForConditionalGeneration KeyeForConditionalGeneration KeyeVL1_5ForConditionalGeneration
    KimiK25ForConditionalGeneration KimiK3ForConditionalGeneration KimiVLForConditionalGeneration Lfm2VlForConditionalGeneration
    LightOnOCRForConditionalGeneration Llama4ForConditionalGeneration Llama_Nemotron_Nano_VL LlavaForConditionalGeneration
    LlavaNextForConditionalGeneration LlavaNextVideoForConditionalGeneration LlavaOnevision2ForConditionalGeneration
    LlavaOnevisionForConditionalGeneration MiDashengLMModel MiMoV2OmniForCausalLM MiniCPMO MiniCPMV
    MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration MiniMaxM3SparseForConditionalGeneration
    Mistral3ForConditionalGeneration Molmo2ForConditionalGeneration MolmoForCausalLM Moondream3ForCausalLM
    MoonshotKimiaForCausalLM MossAudioModel MossTranscribeDiarizeForConditionalGeneration MuseGlimmerForConditionalGeneration
    NVLM_D NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3 NemotronH_Super_Omni_Reasoning_V3
    NemotronParseForConditionalGeneration OpenCUAForConditionalGeneration OpenPanguVLForConditionalGeneration
    OpenVLAForActionPrediction Ovis Ovis2_5 Ovis2_6ForCausalLM Ovis2_6_MoeForCausalLM PaddleOCRVLForConditionalGeneration
    PaliGemmaForConditionalGeneration Phi3VForCausalLM Phi4ForCausalLMV Phi4MMForCausalLM PixtralForConditionalGeneration
    QianfanOCRForConditionalGeneration Qwen2AudioForConditionalGeneration Qwen2VLForConditionalGeneration
    Qwen2_5OmniForConditionalGeneration Qwen2_5OmniModel Qwen2_5_VLForConditionalGeneration Qwen3ASRForConditionalGeneration
    Qwen3ASRRealtimeGeneration Qwen3OmniMoeForConditionalGeneration Qwen3VLForConditionalGeneration
    Qwen3VLMoeForConditionalGeneration Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration
    Qwen4ExpForConditionalGeneration RForConditionalGeneration SkyworkR1VChatModel SmolVLMForConditionalGeneration
    Step3VLForConditionalGeneration Step3p7ForConditionalGeneration StepVLForConditionalGeneration UltravoxModel
    UnlimitedOCRForCausalLM VoxtralForConditionalGeneration VoxtralRealtimeGeneration WhisperForConditionalGeneration
    """.split()
)

TRANSFORMERS: frozenset[str] = frozenset(
    """
    ArceeForCausalLM CwmForCausalLM FlexOlmoForCausalLM GPTBigCodeForCausalLM GPTNeoXForCausalLM GlmForCausalLM
    HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM Jais2ForCausalLM MellumForCausalLM NanbeigeForCausalLM Olmo2ForCausalLM
    Olmo3ForCausalLM OlmoForCausalLM PhiForCausalLM SeedOssForCausalLM SmolLM3ForCausalLM Starcoder2ForCausalLM
    VaultGemmaForCausalLM
    """.split()
)

TRANSFORMERS_MULTIMODAL: frozenset[str] = frozenset(
    """
    Emu3ForConditionalGeneration HunYuanVLForConditionalGeneration VibeVoiceAsrForConditionalGeneration
    """.split()
)

POOLING: frozenset[str] = frozenset(
    """
    BertForMaskedLM BertForSequenceClassification BertForTokenClassification BertModel BertSpladeSparseEmbeddingModel
    BgeM3EmbeddingModel CLIPModel ClefOmniForJointSchema ColBERTJinaRobertaModel ColBERTLfm2Model ColBERTModernBertModel
    ColModernVBertForRetrieval ColPaliForRetrieval ColQwen3 ColQwen3_5 DeciLMForCausalLM DeepseekV3BidirectionalModel
    EmbeddingGemma2Model GPT2ForSequenceClassification Gemma2Model Gemma3TextModel GteModel GteNewForSequenceClassification
    GteNewModel HF_ColBERT InternLM2ForRewardModel JambaForSequenceClassification JinaEmbeddingsV5Model JinaForRanking
    JinaVLForRanking LlamaBidirectionalForSequenceClassification LlamaBidirectionalModel LlamaModel
    LlamaNemotronVLForSequenceClassification LlamaNemotronVLModel LlavaNextForConditionalGeneration MistralModel
    ModernBertForSequenceClassification ModernBertForTokenClassification ModernBertModel NomicBertModel
    OpenAIPrivacyFilterForTokenClassification OpsColQwen3Model Phi3ForCausalLM Phi3VForCausalLM Qwen2ForCausalLM
    Qwen2ForProcessRewardModel Qwen2ForRewardModel Qwen2Model Qwen2VLForConditionalGeneration
    Qwen3ASRForcedAlignerForTokenClassification Qwen3VLNemotronEmbedModel RobertaForMaskedLM RobertaForSequenceClassification
    RobertaForTokenClassification RobertaModel SiglipModel TeleChat2ForCausalLM Terratorch VoyageQwen3BidirectionalEmbedModel
    XLMRobertaForSequenceClassification XLMRobertaForTokenClassification XLMRobertaModel
    """.split()
)

LORA: frozenset[str] = frozenset(
    """
    AXK1ForCausalLM AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM AudioFlamingo3ForConditionalGeneration
    BagelForConditionalGeneration BailingMoeForCausalLM BailingMoeV2ForCausalLM Blip2ForConditionalGeneration
    ChatGLMForConditionalGeneration ChatGLMModel Cohere2ForCausalLM CohereCompassForConditionalGeneration CohereForCausalLM
    Cosmos3ForConditionalGeneration CwmForCausalLM DeciLMForCausalLM DeepseekForCausalLM DeepseekOCR2ForCausalLM
    DeepseekOCRForCausalLM DeepseekV2ForCausalLM DeepseekV32ForCausalLM DeepseekV3ForCausalLM DeepseekV4ForCausalLM
    DeepseekV4ForConditionalGeneration DotsOCRForCausalLM Eagle2_5_VLForConditionalGeneration Emu3ForConditionalGeneration
    Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM Ernie4_5_VLMoeForConditionalGeneration Exaone4ForCausalLM
    Exaone4_5_ForConditionalGeneration ExaoneForCausalLM ExaoneMoEForCausalLM ExaoneMoeForCausalLM FalconH1ForCausalLM
    FlexOlmoForCausalLM GLM4VForCausalLM GPTBigCodeForCausalLM GPTNeoXForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM
    Gemma3ForConditionalGeneration Gemma4ForCausalLM Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration
    GemmaForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM Glm4MoeLiteForCausalLM Glm4vForConditionalGeneration
    Glm4vMoeForConditionalGeneration Glm5NextForConditionalGeneration GlmAsrForConditionalGeneration GlmForCausalLM
    GlmMoeDsaForCausalLM GlmOcrForConditionalGeneration GptOssForCausalLM Granite4VisionForConditionalGeneration
    GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeHybridForCausalLM GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM
    GraniteSWAForCausalLM GraniteSpeechForConditionalGeneration GraniteSpeechPlusForConditionalGeneration H2OVLChatModel
    HYV3ForCausalLM HYV4ForCausalLM HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM HunYuanVLForConditionalGeneration
    HyperCLOVAXForCausalLM IQuestCoderForCausalLM Idefics3ForConditionalGeneration InklingForCausalLM
    InklingForConditionalGeneration InternLM2ForCausalLM InternLM3ForCausalLM InternS1ForConditionalGeneration
    InternS1ProForConditionalGeneration InternS2MobiusForConditionalGeneration InternS2PreviewForConditionalGeneration
    InternVLChatModel InternVLForConditionalGeneration IsaacForConditionalGeneration Jais2ForCausalLM JambaForCausalLM
    K2HorizonForCausalLM KeyeForConditionalGeneration KeyeVL1_5ForConditionalGeneration LLaMAForCausalLM LagunaForCausalLM
    Lfm2ForCausalLM Lfm2MoeForCausalLM Lfm2VlForConditionalGeneration LightOnOCRForConditionalGeneration Llama4ForCausalLM
    Llama4ForConditionalGeneration LlamaForCausalLM Llama_Nemotron_Nano_VL LlavaForConditionalGeneration
    LlavaNextForConditionalGeneration LlavaNextVideoForConditionalGeneration LongcatFlashForCausalLM
    LongcatFlashNgramForCausalLM MellumForCausalLM MiMoForCausalLM MiniCPM3ForCausalLM MiniCPMForCausalLM MiniCPMO MiniCPMV
    MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration MiniMaxM2ForCausalLM Ministral3ForCausalLM
    Mistral3ForConditionalGeneration MistralForCausalLM MistralLarge3ForCausalLM MixtralForCausalLM
    Molmo2ForConditionalGeneration MolmoForCausalLM MossAudioModel MuseGlimmerForCausalLM MuseGlimmerForConditionalGeneration
    NVLM_D NanbeigeForCausalLM NemotronForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM
    NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3 NemotronH_Super_Omni_Reasoning_V3
    OPTForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoForCausalLM OlmoHybridForCausalLM OlmoeForCausalLM
    OpenCUAForConditionalGeneration OpenPanguVLForConditionalGeneration PaliGemmaForConditionalGeneration
    PanguEmbeddedForCausalLM PanguProMoEV2ForCausalLM PanguUltraMoEForCausalLM Param2MoEForCausalLM Phi3ForCausalLM
    Phi4MMForCausalLM PhiForCausalLM PhiMoEForCausalLM PixtralForConditionalGeneration Plamo3ForCausalLM
    QianfanOCRForConditionalGeneration Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen2VLForConditionalGeneration
    Qwen2_5OmniForConditionalGeneration Qwen2_5OmniModel Qwen2_5_VLForConditionalGeneration Qwen3ASRForConditionalGeneration
    Qwen3ASRRealtimeGeneration Qwen3ForCausalLM Qwen3MoeForCausalLM Qwen3NextForCausalLM Qwen3OmniMoeForConditionalGeneration
    Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration
    Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration Qwen4ExpForCausalLM Qwen4ExpForConditionalGeneration
    Rnj1ForCausalLM SarvamMLAForCausalLM SarvamMoEForCausalLM SeedOssForCausalLM SmolLM3ForCausalLM
    SmolVLMForConditionalGeneration SolarForCausalLM Starcoder2ForCausalLM TeleChat2ForCausalLM TeleChat3ForCausalLM
    TeleFLMForCausalLM UltravoxModel UnlimitedOCRForCausalLM VaultGemmaForCausalLM VibeVoiceAsrForConditionalGeneration
    VoxtralForConditionalGeneration VoxtralRealtimeGeneration WhisperForConditionalGeneration
    """.split()
)

QUANTIZATIONS: frozenset[str] = frozenset(
    """
    auto_awq auto_gptq awq awq_marlin compressed-tensors deepseek_v4_fp8 experts_int8 fbgemm_fp8 fp8 fp8_per_block
    fp8_per_channel fp8_per_tensor fp_quant gpt_oss_mxfp4 gptq gptq_marlin humming inc int8_per_channel_weight_only modelopt
    modelopt_fp4 modelopt_mixed modelopt_mxfp8 moe_wna16 mxfp4 mxfp8 nvfp4_per_token online quark torchao
    """.split()
)

CONFIGS: frozenset[str] = frozenset(
    """
    RefinedWeb RefinedWebModel bagel bailing_moe_v3_vl chatglm colpali colqwen3 cosmos3_edge deepseek_v32 deepseek_v4
    deepseek_v41 deepseek_vl_v2 dots3_note eagle funaudiochat hy_v4 hyperclovax inkling_mm_model inkling_model isaac k3_dspark
    kimi_k2 kimi_k25 kimi_k3 kimi_linear kimi_vl medusa midashenglm minimax_m3_mtp minimax_m3_vl mlp_speculator modernvbert
    moondream3 moss_transcribe_diarize muse_glimmer muse_glimmer_assistant muse_glimmer_text muse_glimmer_vision openvla
    ops_colqwen3 ovis qianfan_ocr qwen3_asr qwen3_vl_nemotron_embed speculators step3_text step3_vl step3p5 ultravox
    unlimited-ocr unlimited_ocr
    """.split()
)

DROPPED: dict[str, str] = dict(
    pair.split("=")
    for pair in """
    AquilaForCausalLM=0.24.0 AquilaModel=0.24.0 ArcticForCausalLM=0.28.0 AyaVisionForConditionalGeneration=0.24.0
    BaiChuanForCausalLM=0.23.0 BaichuanForCausalLM=0.23.0 BambaForCausalLM=0.23.0 ChameleonForConditionalGeneration=0.28.0
    Cheers=0.28.0 CheersForConditionalGeneration=0.28.0 DonutForConditionalGeneration=0.10.2 Dots1ForCausalLM=0.23.0
    ErnieForSequenceClassification=0.23.0 ErnieForTokenClassification=0.23.0 ErnieModel=0.23.0 Fairseq2LlamaForCausalLM=0.28.0
    FireRedLIDForConditionalGeneration=0.28.0 FuyuForCausalLM=0.25.0 GritLM=0.28.0 Grok1ForCausalLM=0.24.0
    Grok1ModelForCausalLM=0.24.0 HCXVisionForCausalLM=0.28.0 InternLM2VEForCausalLM=0.23.0 InternLMForCausalLM=0.23.0
    JAISLMHeadModel=0.22.0 MPTForCausalLM=0.28.0 MantisForConditionalGeneration=0.24.0 MiniMaxForCausalLM=0.23.0
    MiniMaxM1ForCausalLM=0.23.0 MiniMaxText01ForCausalLM=0.23.0 MiniMaxVL01ForConditionalGeneration=0.23.0
    MllamaForConditionalGeneration=0.10.2 MotifForCausalLM=0.10.2 MptForCausalLM=0.28.0
    MusicFlamingoForConditionalGeneration=0.24.0 OuroForCausalLM=0.26.0 PersimmonForCausalLM=0.25.0 Phi3SmallForCausalLM=0.9.2
    Phi4FlashForCausalLM=0.10.2 Phi4MultimodalForCausalLM=0.12.0 Plamo2ForCausalLM=0.26.0 PrithviGeoSpatialMAE=0.28.0
    QWenLMHeadModel=0.23.0 QwenVLForConditionalGeneration=0.23.0 RWForCausalLM=0.28.0 StableLMEpochForCausalLM=0.28.0
    Tarsier2ForConditionalGeneration=0.23.0 TarsierForConditionalGeneration=0.24.0 TeleChatForCausalLM=0.25.0
    XverseForCausalLM=0.23.0
    """.split()
)

PLUGINS: dict[str, str] = dict(
    pair.split("=")
    for pair in """
    BartForConditionalGeneration=bart-plugin BartModel=bart-plugin Florence2ForConditionalGeneration=bart-plugin
    MBartForConditionalGeneration=bart-plugin Nemotron3_5AsrForRNNT=vllm-nemotron-asr-plugin
    """.split()
)
