"""Every engine argument of every vLLM that was looked at: name, what it takes, the versions that have it.

Written by scripts/record_engine_args.py (``make generate``); don't edit. 0.13.0, 0.19.0 and 0.24.0 are those of Triton's
containers 26.01, 26.04 and 26.07; the last one is the model runtime's.
"""

from __future__ import annotations

TABLE = """
additional_config dict 0.13.0 0.19.0 0.24.0 0.32.0
aggregate_engine_logging bool 0.13.0 0.19.0 0.24.0 0.32.0
all2all_backend any 0.13.0 0.19.0 0.24.0 0.32.0
allow_deprecated_quantization bool 0.19.0 0.24.0 0.32.0
allowed_local_media_path str 0.13.0 0.19.0 0.24.0 0.32.0
allowed_media_domains list|None 0.13.0 0.19.0 0.24.0 0.32.0
async_scheduling bool|None 0.13.0 0.19.0 0.24.0 0.32.0
attention_backend any 0.13.0 0.19.0 0.24.0 0.32.0
attention_config any 0.13.0 0.19.0 0.24.0 0.32.0
aux_output_config any 0.32.0
block_size int|None 0.13.0 0.19.0 0.24.0 0.32.0
calculate_kv_scales bool 0.13.0 0.19.0 0.24.0
code_revision str|None 0.13.0 0.19.0 0.24.0 0.32.0
collect_detailed_traces list|None 0.13.0 0.19.0 0.24.0 0.32.0
compilation_config any 0.13.0 0.19.0 0.24.0 0.32.0
config_format str 0.13.0 0.19.0 0.24.0 0.32.0
convert any 0.13.0 0.19.0 0.24.0 0.32.0
cp_kv_cache_interleave_size int|None 0.13.0 0.19.0 0.24.0 0.32.0
cpu_distributed_timeout_seconds int|None 0.24.0 0.32.0
cpu_offload_gb float 0.13.0 0.19.0 0.24.0 0.32.0
cpu_offload_params any 0.19.0 0.24.0 0.32.0
cudagraph_capture_sizes list|None 0.13.0 0.19.0 0.24.0 0.32.0
cudagraph_metrics bool 0.13.0 0.19.0 0.24.0 0.32.0
custom_histogram_buckets dict|None 0.32.0
data_parallel_address str|None 0.13.0 0.19.0 0.24.0 0.32.0
data_parallel_backend any 0.13.0 0.19.0 0.24.0 0.32.0
data_parallel_external_lb bool 0.13.0 0.19.0 0.24.0 0.32.0
data_parallel_hybrid_lb bool 0.13.0 0.19.0 0.24.0 0.32.0
data_parallel_multi_port_external_lb bool 0.24.0 0.32.0
data_parallel_rank int|None 0.13.0 0.19.0 0.24.0 0.32.0
data_parallel_rpc_port int|None 0.13.0 0.19.0 0.24.0 0.32.0
data_parallel_size int 0.13.0 0.19.0 0.24.0 0.32.0
data_parallel_size_local int|None 0.13.0 0.19.0 0.24.0 0.32.0
data_parallel_start_rank int|None 0.13.0 0.19.0 0.24.0 0.32.0
dbo_decode_token_threshold int 0.13.0 0.19.0 0.24.0 0.32.0
dbo_prefill_token_threshold int 0.13.0 0.19.0 0.24.0 0.32.0
dcp_comm_backend any 0.19.0 0.24.0 0.32.0
dcp_kv_cache_interleave_size int 0.13.0 0.19.0 0.24.0 0.32.0
dcp_q_replicate bool|None 0.32.0
decode_context_parallel_size int 0.13.0 0.19.0 0.24.0 0.32.0
default_mm_loras dict|None 0.13.0 0.19.0 0.24.0 0.32.0
device_ids list|None 0.24.0 0.32.0
diffusion_config dict|None 0.24.0 0.32.0
disable_cascade_attn bool|None 0.13.0 0.19.0 0.24.0 0.32.0
disable_chunked_mm_input bool 0.13.0 0.19.0 0.24.0 0.32.0
disable_custom_all_reduce bool 0.13.0 0.19.0 0.24.0 0.32.0
disable_hybrid_kv_cache_manager bool|None 0.13.0 0.19.0 0.24.0 0.32.0
disable_log_stats bool 0.13.0 0.19.0 0.24.0 0.32.0
disable_nccl_for_dp_synchronization bool|None 0.13.0 0.19.0 0.24.0 0.32.0
disable_sliding_window bool 0.13.0 0.19.0 0.24.0 0.32.0
distributed_executor_backend any 0.13.0 0.19.0 0.24.0 0.32.0
distributed_timeout_seconds int|None 0.19.0 0.24.0 0.32.0
download_dir str|None 0.13.0 0.19.0 0.24.0 0.32.0
dp_sync_interval int 0.32.0
dtype any 0.13.0 0.19.0 0.24.0 0.32.0
ec_manager_config any 0.32.0
ec_transfer_config any 0.13.0 0.19.0 0.24.0 0.32.0
elastic_ep_max_dp_size int 0.32.0
enable_batch_sharded_sampling bool|None 0.32.0
enable_chunked_prefill bool|None 0.13.0 0.19.0 0.24.0 0.32.0
enable_cumem_allocator bool 0.24.0 0.32.0
enable_dbo bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_elastic_ep bool 0.19.0 0.24.0 0.32.0
enable_ep_weight_filter bool 0.19.0 0.24.0 0.32.0
enable_eplb bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_expert_parallel bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_fault_tolerance bool 0.32.0
enable_flashinfer_autotune bool 0.19.0 0.24.0 0.32.0
enable_hc_sp bool 0.32.0
enable_layerwise_nvtx_tracing bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_log_requests bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_logging_iteration_details bool 0.19.0 0.24.0 0.32.0
enable_lora bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_mamba_cache_stochastic_rounding bool 0.24.0 0.32.0
enable_mamba_shared_prefix_checkpoint bool 0.32.0
enable_mfu_metrics bool 0.19.0 0.24.0 0.32.0
enable_mixed_moe_lora_format bool 0.24.0 0.32.0
enable_mm_embeds bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_mm_processor_stats bool 0.19.0 0.24.0 0.32.0
enable_moe_shared_loras bool 0.32.0
enable_nccl_comm_suspend bool 0.32.0
enable_prefix_caching bool|None 0.13.0 0.19.0 0.24.0 0.32.0
enable_prompt_embeds bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_return_routed_experts bool 0.19.0 0.24.0 0.32.0
enable_shm_tensor_arena bool 0.32.0
enable_sleep_mode bool 0.13.0 0.19.0 0.24.0 0.32.0
enable_tower_connector_lora bool 0.19.0 0.24.0 0.32.0
enable_trace_replay bool 0.32.0
enforce_eager bool 0.13.0 0.19.0 0.24.0 0.32.0
engram_config any 0.32.0
eplb_config any 0.13.0 0.19.0 0.24.0 0.32.0
expert_placement_strategy any 0.13.0 0.19.0 0.24.0 0.32.0
fail_on_environ_validation bool 0.19.0 0.24.0 0.32.0
fault_tolerance_config any 0.32.0
fully_sharded_loras bool 0.13.0 0.19.0 0.24.0 0.32.0
gdn_prefill_backend any 0.19.0 0.24.0 0.32.0
generation_config str 0.13.0 0.19.0 0.24.0 0.32.0
gpu_memory_utilization float 0.13.0 0.19.0 0.24.0 0.32.0
hf_config_path str|None 0.13.0 0.19.0 0.24.0 0.32.0
hf_overrides any 0.13.0 0.19.0 0.24.0 0.32.0
hf_token bool|str|None 0.13.0 0.19.0 0.24.0 0.32.0
ignore_patterns str|list 0.13.0 0.19.0 0.24.0 0.32.0
interleave_mm_strings bool 0.13.0 0.19.0 0.24.0 0.32.0
io_processor_plugin str|None 0.13.0 0.19.0 0.24.0 0.32.0
ir_op_priority any 0.24.0 0.32.0
jit_monitor_mode any 0.32.0
jit_monitor_verbose bool 0.24.0 0.32.0
kda_decode_backend any 0.32.0
kda_prefill_backend any 0.32.0
kernel_config any 0.19.0 0.24.0 0.32.0
kv_cache_dtype any 0.13.0 0.19.0 0.24.0 0.32.0
kv_cache_dtype_skip_layers list 0.19.0 0.24.0 0.32.0
kv_cache_memory_bytes int|None 0.13.0 0.19.0 0.24.0 0.32.0
kv_cache_metrics bool 0.13.0 0.19.0 0.24.0 0.32.0
kv_cache_metrics_sample float 0.13.0 0.19.0 0.24.0 0.32.0
kv_events_config any 0.13.0 0.19.0 0.24.0 0.32.0
kv_offloading_backend any 0.13.0 0.19.0 0.24.0 0.32.0
kv_offloading_size float|None 0.13.0 0.19.0 0.24.0 0.32.0
kv_sharing_fast_prefill bool 0.13.0 0.19.0 0.24.0 0.32.0
kv_transfer_config any 0.13.0 0.19.0 0.24.0 0.32.0
language_model_only bool 0.19.0 0.24.0 0.32.0
limit_mm_per_prompt dict 0.13.0 0.19.0 0.24.0 0.32.0
linear_backend any 0.24.0 0.32.0
load_format any 0.13.0 0.19.0 0.24.0 0.32.0
log_config_file str|None 0.32.0
log_level any 0.32.0
logging_config any 0.32.0
logits_processor_pattern str|None 0.13.0
logits_processors list|None 0.13.0 0.19.0 0.24.0 0.32.0
logprobs_mode any 0.13.0 0.19.0 0.24.0 0.32.0
long_prefill_token_threshold int 0.13.0 0.19.0 0.24.0 0.32.0
long_prefill_token_threshold_adaptive bool 0.32.0
lora_dtype any 0.13.0 0.19.0 0.24.0 0.32.0
lora_target_modules list|None 0.19.0 0.24.0 0.32.0
mamba_backend any 0.24.0 0.32.0
mamba_block_size int|None 0.13.0 0.19.0 0.24.0 0.32.0
mamba_cache_dtype any 0.13.0 0.19.0 0.24.0 0.32.0
mamba_cache_mode any 0.19.0 0.24.0 0.32.0
mamba_cache_philox_rounds int 0.24.0 0.32.0
mamba_config any 0.24.0 0.32.0
mamba_ssm_cache_dtype any 0.13.0 0.19.0 0.24.0 0.32.0
mamba_ssu_algorithm any 0.32.0
master_addr str 0.13.0 0.19.0 0.24.0 0.32.0
master_port int 0.13.0 0.19.0 0.24.0 0.32.0
max_cpu_loras int|None 0.13.0 0.19.0 0.24.0 0.32.0
max_cudagraph_capture_size int|None 0.13.0 0.19.0 0.24.0 0.32.0
max_logprobs int 0.13.0 0.19.0 0.24.0 0.32.0
max_long_partial_prefills int 0.13.0 0.19.0 0.24.0
max_lora_cls_labels int|None 0.32.0
max_lora_rank any 0.13.0 0.19.0 0.24.0 0.32.0
max_loras int 0.13.0 0.19.0 0.24.0 0.32.0
max_model_len int 0.13.0 0.19.0 0.24.0 0.32.0
max_num_active_seqs int|None 0.32.0
max_num_batched_tokens int|None 0.13.0 0.19.0 0.24.0 0.32.0
max_num_partial_prefills int 0.13.0 0.19.0 0.24.0
max_num_queued_reqs int|None 0.32.0
max_num_queued_tokens int|None 0.32.0
max_num_scheduled_tokens int|None 0.32.0
max_num_seqs int|None 0.13.0 0.19.0 0.24.0 0.32.0
max_parallel_loading_workers int|None 0.13.0 0.19.0 0.24.0 0.32.0
media_io_kwargs dict 0.13.0 0.19.0 0.24.0 0.32.0
mm_device_do_normalize bool|None 0.32.0
mm_encoder_attn_backend any 0.13.0 0.19.0 0.24.0 0.32.0
mm_encoder_attn_dtype str|None 0.24.0 0.32.0
mm_encoder_fp8_scale_path str|None 0.24.0 0.32.0
mm_encoder_fp8_scale_save_margin float 0.24.0 0.32.0
mm_encoder_fp8_scale_save_path str|None 0.24.0 0.32.0
mm_encoder_only bool 0.19.0 0.24.0 0.32.0
mm_encoder_tp_mode any 0.13.0 0.19.0 0.24.0 0.32.0
mm_hasher_algorithm any 0.32.0
mm_ipc_gpu_memory_gb float 0.32.0
mm_processor_cache_gb float 0.13.0 0.19.0 0.24.0 0.32.0
mm_processor_cache_type any 0.13.0 0.19.0 0.24.0 0.32.0
mm_processor_device any 0.32.0
mm_processor_kwargs dict|None 0.13.0 0.19.0 0.24.0 0.32.0
mm_shm_cache_max_object_size_mb int 0.13.0 0.19.0 0.24.0 0.32.0
mm_tensor_ipc any 0.19.0 0.24.0 0.32.0
model str 0.13.0 0.19.0 0.24.0 0.32.0
model_class_overrides dict 0.32.0
model_impl str 0.13.0 0.19.0 0.24.0 0.32.0
model_loader_extra_config dict 0.13.0 0.19.0 0.24.0 0.32.0
model_weights str 0.19.0 0.24.0 0.32.0
moe_backend any 0.19.0 0.24.0 0.32.0
nnodes int 0.13.0 0.19.0 0.24.0 0.32.0
node_rank int 0.13.0 0.19.0 0.24.0 0.32.0
num_gpu_blocks_override int|None 0.13.0 0.19.0 0.24.0 0.32.0
numa_bind bool 0.24.0 0.32.0
numa_bind_cpus list|None 0.24.0 0.32.0
numa_bind_nodes list|None 0.24.0 0.32.0
offload_backend str 0.19.0 0.24.0 0.32.0
offload_group_size int 0.19.0 0.24.0 0.32.0
offload_num_in_group int 0.19.0 0.24.0 0.32.0
offload_params any 0.19.0 0.24.0 0.32.0
offload_prefetch_step int 0.19.0 0.24.0 0.32.0
optimization_level any 0.13.0 0.19.0 0.24.0 0.32.0
otlp_traces_endpoint str|None 0.13.0 0.19.0 0.24.0 0.32.0
override_attention_dtype str|None 0.13.0 0.19.0 0.24.0
override_generation_config dict 0.13.0 0.19.0 0.24.0 0.32.0
per_request_spec_decode_metrics any 0.32.0
performance_mode any 0.19.0 0.24.0 0.32.0
pipeline_parallel_size int 0.13.0 0.19.0 0.24.0 0.32.0
pooler_config any 0.13.0 0.19.0 0.24.0 0.32.0
prefill_context_parallel_size int 0.13.0 0.19.0 0.24.0 0.32.0
prefill_schedule_interval int 0.24.0 0.32.0
prefix_cache_retention_interval int|None 0.32.0
prefix_caching_hash_algo any 0.13.0 0.19.0 0.24.0 0.32.0
prefix_match_unit int|None 0.32.0
profiler_config any 0.13.0 0.19.0 0.24.0 0.32.0
pt_load_map_location str|dict 0.13.0 0.19.0 0.24.0 0.32.0
quantization any 0.13.0 0.19.0 0.24.0 0.32.0
quantization_config any 0.24.0 0.32.0
ray_workers_use_nsight bool 0.13.0 0.19.0 0.24.0 0.32.0
reasoning_config any 0.19.0 0.24.0 0.32.0
reasoning_parser str 0.13.0 0.19.0 0.24.0 0.32.0
reasoning_parser_plugin str|None 0.13.0 0.19.0 0.24.0 0.32.0
renderer_num_workers int 0.19.0 0.24.0 0.32.0
replayssm_buffer_len int 0.32.0
return_sampling_mask bool 0.32.0
revision str|None 0.13.0 0.19.0 0.24.0 0.32.0
runner any 0.13.0 0.19.0 0.24.0 0.32.0
safetensors_load_strategy any 0.13.0 0.19.0 0.24.0 0.32.0
safetensors_prefetch_block_size int 0.24.0 0.32.0
safetensors_prefetch_num_threads int 0.24.0 0.32.0
scheduler_cls any 0.13.0 0.19.0 0.24.0 0.32.0
scheduler_reserve_full_isl bool 0.19.0 0.24.0 0.32.0
scheduling_policy any 0.13.0 0.19.0 0.24.0 0.32.0
seed int 0.13.0 0.19.0 0.24.0 0.32.0
served_model_name str|list|None 0.13.0 0.19.0 0.24.0 0.32.0
show_hidden_metrics_for_version str|None 0.13.0 0.19.0 0.24.0 0.32.0
shutdown_timeout int 0.19.0 0.24.0 0.32.0
skip_mm_profiling bool 0.13.0 0.19.0 0.24.0 0.32.0
skip_tokenizer_init bool 0.13.0 0.19.0 0.24.0 0.32.0
sleep_mode_offload_cudagraph bool 0.32.0
sleep_preserve_parameter_names list 0.32.0
sparse_indexer_topk_backend any 0.32.0
spec_method str|None 0.24.0 0.32.0
spec_model str|None 0.24.0 0.32.0
spec_tokens int|None 0.24.0 0.32.0
specialize_active_lora bool 0.19.0 0.24.0 0.32.0
speculative_config dict|None 0.13.0 0.19.0 0.24.0 0.32.0
stream_interval int 0.13.0 0.19.0 0.24.0 0.32.0
structured_outputs_config any 0.13.0 0.19.0 0.24.0 0.32.0
swa_bounded_replay bool 0.32.0
swap_space float 0.13.0
tensor_parallel_size int 0.13.0 0.19.0 0.24.0 0.32.0
tokenizer str|None 0.13.0 0.19.0 0.24.0 0.32.0
tokenizer_mode any 0.13.0 0.19.0 0.24.0 0.32.0
tokenizer_revision str|None 0.13.0 0.19.0 0.24.0 0.32.0
tokens_only bool 0.13.0 0.19.0 0.24.0 0.32.0
trust_remote_code bool 0.13.0 0.19.0 0.24.0 0.32.0
ubatch_size int 0.19.0 0.24.0 0.32.0
use_fp64_gumbel bool 0.24.0 0.32.0
use_replayssm bool 0.32.0
use_tqdm_on_load bool 0.13.0 0.19.0 0.24.0 0.32.0
video_pruning_method str 0.32.0
video_pruning_rate float|None 0.13.0 0.19.0 0.24.0 0.32.0
watermark float 0.24.0 0.32.0
watermark_config dict|None 0.32.0
weight_transfer_config any 0.19.0 0.24.0 0.32.0
worker_cls str 0.13.0 0.19.0 0.24.0 0.32.0
worker_extension_cls str 0.13.0 0.19.0 0.24.0 0.32.0
"""
