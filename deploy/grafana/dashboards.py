#!/usr/bin/env python3
"""Writes the six dashboards into the chart, which installs them; nobody edits the JSON.

dashboards.py          writes them
dashboards.py --check  fails when they are not those that would be written
"""

import json
import pathlib
import sys

from panels import (
    dashboard,
    heatmap,
    mean,
    of_models,
    of_pods,
    per_second,
    quantile,
    quantiles,
    ratio,
    stat,
    table,
    timeline,
    timeseries,
)

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "helm/hanmo/dashboards"

READY = 'state="ready"'
SERVER_FAULTS = 'code=~"INTERNAL|UNKNOWN|DATA_LOSS|UNAVAILABLE"'


def requests(more=""):
    return per_second(of_models("hanmo_requests_total", more))


def increase(series, by):
    return f"sum by ({by}) (increase({series}[$__rate_interval]))"


def overview():
    return dashboard(
        "hanmo-overview",
        "hanmo / Overview",
        "Is it up, how much does it do, how long do clients wait?",
        [
            (
                "Now",
                [
                    stat(
                        "Models ready",
                        f"sum({of_models('hanmo_model_state', READY)})",
                        "none",
                        "Of all pods together.",
                    ),
                    stat("Workers", f"sum({of_pods('hanmo_worker_up')})", "none"),
                    stat("Requests", requests(), "reqps"),
                    stat(
                        "Server faults",
                        ratio(requests(SERVER_FAULTS), requests()),
                        "percentunit",
                        "Share of requests that ended with INTERNAL, UNKNOWN, DATA_LOSS or "
                        "UNAVAILABLE.",
                        steps=[(0.001, "orange"), (0.01, "red")],
                    ),
                    stat(
                        "Waiting",
                        f"sum({of_models('hanmo_requests_waiting')})",
                        "none",
                        steps=[(100, "orange"), (500, "red")],
                    ),
                    stat("Running", f"sum({of_models('hanmo_requests_running')})", "none"),
                ],
            ),
            (
                "Traffic",
                [
                    timeseries(
                        "Requests by code",
                        [
                            (
                                per_second(of_models("hanmo_requests_total"), "code") + " > 0",
                                "{{code}}",
                            )
                        ],
                        "reqps",
                        stack=True,
                    ),
                    timeseries(
                        "Requests by model",
                        [(per_second(of_models("hanmo_requests_total"), "model"), "{{model}}")],
                        "reqps",
                        stack=True,
                    ),
                    timeseries(
                        "Waiting and running",
                        [
                            (f"sum({of_models('hanmo_requests_waiting')})", "waiting"),
                            (f"sum({of_models('hanmo_requests_running')})", "running"),
                            (f"sum({of_pods('hanmo_queue_limit_requests')})", "limit"),
                        ],
                        "none",
                    ),
                    timeseries(
                        "Tokens",
                        [
                            (per_second(of_models("hanmo_prompt_tokens_total")), "read"),
                            (per_second(of_models("hanmo_completion_tokens_total")), "written"),
                        ],
                        "cps",
                    ),
                    timeseries(
                        "Pictures",
                        [(per_second(of_models("hanmo_pictures_total"), "model"), "{{model}}")],
                        "cps",
                    ),
                    timeline(
                        "State of the models",
                        [
                            (
                                f"max by (model, state) ({of_models('hanmo_model_state')}) > 0",
                                "{{model}} {{state}}",
                            )
                        ],
                        "A bar for each state that a model is in.",
                        width=8,
                    ),
                ],
            ),
            (
                "What clients wait",
                [
                    timeseries("Whole request", quantiles("hanmo_request_seconds"), "s"),
                    heatmap("Whole request", "hanmo_request_seconds", "s"),
                    timeseries(
                        "p95 by model",
                        [(quantile(0.95, "hanmo_request_seconds", "model"), "{{model}}")],
                        "s",
                    ),
                    timeseries("In the queue", quantiles("hanmo_queue_seconds"), "s"),
                    timeseries(
                        "To the first token", quantiles("hanmo_time_to_first_token_seconds"), "s"
                    ),
                    table(
                        "Versions",
                        f"count by (namespace, pod, version) ({of_pods('hanmo_build_info')})",
                        "none",
                        width=8,
                    ),
                ],
            ),
        ],
    )


def text():
    phases = [
        ("tokenize", "hanmo_tokenize_seconds"),
        ("queue", "hanmo_queue_seconds"),
        ("prefill", "hanmo_prefill_seconds"),
        ("decode", "hanmo_decode_seconds"),
        ("send", "hanmo_send_seconds"),
    ]
    return dashboard(
        "hanmo-text",
        "hanmo / Text latency",
        "Time to the first token, between tokens and to the end, and what they are made of.",
        task="text",
        rows=[
            (
                "First token",
                [
                    timeseries("First token", quantiles("hanmo_time_to_first_token_seconds"), "s"),
                    heatmap("First token", "hanmo_time_to_first_token_seconds", "s"),
                    timeseries(
                        "First token, p95 by model",
                        [
                            (
                                quantile(0.95, "hanmo_time_to_first_token_seconds", "model"),
                                "{{model}}",
                            )
                        ],
                        "s",
                    ),
                ],
            ),
            (
                "Between tokens",
                [
                    timeseries("Between two tokens", quantiles("hanmo_inter_token_seconds"), "s"),
                    heatmap("Between two tokens", "hanmo_inter_token_seconds", "s"),
                    timeseries(
                        "Per output token",
                        quantiles("hanmo_time_per_output_token_seconds"),
                        "s",
                        "The mean of each text; its quantiles over texts.",
                    ),
                ],
            ),
            (
                "Phases",
                [
                    timeseries(
                        "Mean of each phase",
                        [
                            (mean(family, "model"), f"{{{{model}}}} {name}")
                            for name, family in phases
                        ],
                        "s",
                        width=12,
                    ),
                    timeseries("Prefill", quantiles("hanmo_prefill_seconds"), "s", width=6),
                    timeseries("Decode", quantiles("hanmo_decode_seconds"), "s", width=6),
                    timeseries("In the queue", quantiles("hanmo_queue_seconds"), "s"),
                    timeseries("Step on the device", quantiles("hanmo_step_seconds"), "s"),
                    timeseries(
                        "Rows of a step",
                        [(mean("hanmo_batch_size", "model", 'step="text"'), "{{model}}")],
                        "none",
                    ),
                ],
            ),
            (
                "Work",
                [
                    timeseries(
                        "Tokens",
                        [
                            (
                                per_second(of_models("hanmo_prompt_tokens_total"), "model"),
                                "{{model}} read",
                            ),
                            (
                                per_second(of_models("hanmo_completion_tokens_total"), "model"),
                                "{{model}} written",
                            ),
                        ],
                        "cps",
                    ),
                    timeseries(
                        "Texts by end",
                        [
                            (
                                per_second(of_models("hanmo_texts_total"), "finish_reason"),
                                "{{finish_reason}}",
                            )
                        ],
                        "cps",
                        stack=True,
                    ),
                    timeseries(
                        "Saved work",
                        [
                            (
                                ratio(
                                    per_second(of_models("hanmo_prefix_cache_hit_tokens_total")),
                                    per_second(of_models("hanmo_text_prompt_tokens_sum")),
                                ),
                                "prompt tokens found in shared pages",
                            ),
                            (
                                ratio(
                                    per_second(of_models("hanmo_draft_tokens_accepted_total")),
                                    per_second(of_models("hanmo_draft_tokens_total")),
                                ),
                                "guessed tokens that came true",
                            ),
                        ],
                        "percentunit",
                    ),
                    heatmap("Length of prompts", "hanmo_text_prompt_tokens", "none"),
                    heatmap("Length of texts", "hanmo_text_completion_tokens", "none"),
                    timeseries(
                        "Key/value pages in use",
                        [
                            (
                                f"sum by (model) ({of_models('hanmo_kv_pages_used')}) / "
                                f"sum by (model) ({of_models('hanmo_kv_pages')})",
                                "{{model}}",
                            )
                        ],
                        "percentunit",
                        limit=0.95,
                    ),
                ],
            ),
        ],
    )


def pictures():
    denoise = 'step="denoise"'
    phases = [
        ("tokenize", "hanmo_tokenize_seconds"),
        ("queue", "hanmo_queue_seconds"),
        ("encode the text", "hanmo_text_encode_seconds"),
        ("one step", "hanmo_step_seconds"),
        ("decode", "hanmo_vae_decode_seconds"),
        ("encode the file", "hanmo_picture_encode_seconds"),
        ("send", "hanmo_send_seconds"),
    ]
    return dashboard(
        "hanmo-pictures",
        "hanmo / Pictures",
        "Steps a second, phases, sizes, and what is done in vain.",
        task="picture",
        rows=[
            (
                "Pace",
                [
                    timeseries(
                        "Pictures",
                        [(per_second(of_models("hanmo_pictures_total"), "model"), "{{model}}")],
                        "cps",
                    ),
                    timeseries(
                        "Denoising steps",
                        [(per_second(of_models("hanmo_steps_total"), "model"), "{{model}}")],
                        "cps",
                    ),
                    timeseries(
                        "Pixels",
                        [(per_second(of_models("hanmo_picture_pixels_sum"), "model"), "{{model}}")],
                        "cps",
                    ),
                ],
            ),
            (
                "Time",
                [
                    heatmap("Step on the device", "hanmo_step_seconds", "s"),
                    timeseries(
                        "Step on the device, p95",
                        [(quantile(0.95, "hanmo_step_seconds", "model"), "{{model}}")],
                        "s",
                    ),
                    timeseries(
                        "Mean of each phase",
                        [
                            (mean(family, "model"), f"{{{{model}}}} {name}")
                            for name, family in phases
                        ],
                        "s",
                    ),
                    timeseries("Encode the text", quantiles("hanmo_text_encode_seconds"), "s"),
                    timeseries("Decode to pixels", quantiles("hanmo_vae_decode_seconds"), "s"),
                    timeseries(
                        "Encode the file",
                        quantiles("hanmo_picture_encode_seconds"),
                        "s",
                        "With the wait for a thread: see --media-threads.",
                    ),
                    timeseries(
                        "Whole request, p95",
                        [(quantile(0.95, "hanmo_request_seconds", "model"), "{{model}}")],
                        "s",
                    ),
                    timeseries(
                        "First preview", quantiles("hanmo_time_to_first_preview_seconds"), "s"
                    ),
                    timeseries(
                        "Previews left out",
                        [
                            (
                                per_second(of_models("hanmo_previews_dropped_total"), "model"),
                                "{{model}}",
                            )
                        ],
                        "cps",
                    ),
                ],
            ),
            (
                "Sizes and batches",
                [
                    heatmap(
                        "Size",
                        "hanmo_picture_pixels",
                        "none",
                        "Pixels of each picture: 262144 is 512 × 512.",
                    ),
                    heatmap("Pictures in a step", "hanmo_batch_size", "none", more=denoise),
                    timeseries(
                        "Pictures in a step",
                        [
                            (mean("hanmo_batch_size", "model", denoise), "{{model}}"),
                            (
                                f"avg by (model, size) ({of_models('hanmo_step_knee_rows', denoise)})",
                                "{{model}} knee at {{size}}",
                            ),
                        ],
                        "none",
                        "The mean, and the size beyond which larger batches bring little.",
                    ),
                ],
            ),
            (
                "In vain",
                [
                    timeseries(
                        "Steps in vain",
                        [
                            (
                                ratio(
                                    per_second(of_models("hanmo_steps_wasted_total")),
                                    per_second(of_models("hanmo_steps_total")),
                                ),
                                "wasted",
                            ),
                            (
                                ratio(
                                    per_second(of_models("hanmo_steps_redone_total")),
                                    per_second(of_models("hanmo_steps_total")),
                                ),
                                "redone after a worker was lost",
                            ),
                        ],
                        "percentunit",
                    ),
                    timeseries(
                        "Steps cut into slices",
                        [(per_second(of_models("hanmo_sliced_steps_total"), "model"), "{{model}}")],
                        "cps",
                    ),
                    timeseries(
                        "NaN or Inf",
                        [
                            (
                                increase(of_models("hanmo_nonfinite_outputs_total"), "model"),
                                "{{model}}",
                            )
                        ],
                        "none",
                    ),
                ],
            ),
        ],
    )


def scheduler():
    return dashboard(
        "hanmo-scheduler",
        "hanmo / Scheduler",
        "The queue, the batches, the pages, and who gets how much.",
        [
            (
                "Queue",
                [
                    timeseries(
                        "Waiting",
                        [(f"sum by (model) ({of_models('hanmo_requests_waiting')})", "{{model}}")],
                        "none",
                        stack=True,
                    ),
                    timeseries(
                        "Fill of the queue",
                        [
                            (
                                f"sum by (pod) ({of_pods('hanmo_queued_requests')}) / "
                                f"sum by (pod) ({of_pods('hanmo_queue_limit_requests')})",
                                "{{pod}}",
                            ),
                            (
                                f"max by (pod) (avg_over_time({of_pods('hanmo_overloaded')}[$__rate_interval]))",
                                "{{pod}} full",
                            ),
                        ],
                        "percentunit",
                        "Full is also who has --max-queued-work waiting.",
                        limit=1,
                    ),
                    heatmap("Time in the queue", "hanmo_queue_seconds", "s"),
                    timeseries(
                        "Running",
                        [
                            (
                                f"sum by (model) ({of_models('hanmo_requests_running')})",
                                "{{model}}",
                            ),
                            (f"sum({of_pods('hanmo_active_requests')})", "all"),
                        ],
                        "none",
                    ),
                    timeseries(
                        "Refused",
                        [(per_second(of_pods("hanmo_rejected_total"), "reason"), "{{reason}}")],
                        "reqps",
                        stack=True,
                    ),
                    timeseries(
                        "Deadlines missed",
                        [
                            (
                                per_second(of_models("hanmo_deadline_missed_total"), "phase"),
                                "{{phase}}",
                            )
                        ],
                        "reqps",
                        stack=True,
                    ),
                ],
            ),
            (
                "Batches",
                [
                    heatmap("Rows of a step", "hanmo_batch_size", "none"),
                    timeseries(
                        "Mean rows by step",
                        [(mean("hanmo_batch_size", "step"), "{{step}}")],
                        "none",
                    ),
                    timeseries(
                        "Tick of the batcher",
                        quantiles("hanmo_tick_seconds", select=of_pods),
                        "s",
                        "The loop that decides; it should stay below a millisecond.",
                    ),
                    timeseries(
                        "Steps cut into slices",
                        [(per_second(of_models("hanmo_sliced_steps_total"), "model"), "{{model}}")],
                        "cps",
                    ),
                    timeseries(
                        "Knee of the cost curve",
                        [
                            (
                                f"avg by (model, step, size) ({of_models('hanmo_step_knee_rows')})",
                                "{{model}} {{step}} {{size}}",
                            )
                        ],
                        "none",
                    ),
                    timeseries(
                        "Device idle though there was work",
                        [
                            (
                                per_second(
                                    of_pods("hanmo_device_idle_seconds_total"), "pod, worker"
                                ),
                                "{{pod}} {{worker}}",
                            )
                        ],
                        "percentunit",
                    ),
                ],
            ),
            (
                "Pages of texts",
                [
                    timeseries(
                        "Pages",
                        [
                            (
                                f"sum by (model) ({of_models('hanmo_kv_pages_used')})",
                                "{{model}} used",
                            ),
                            (f"sum by (model) ({of_models('hanmo_kv_pages')})", "{{model}} all"),
                            (f"avg({of_pods('hanmo_kv_cache_utilization_ratio')})", "share in use"),
                        ],
                        "none",
                    ),
                    timeseries(
                        "Tokens found in shared pages",
                        [
                            (
                                per_second(
                                    of_models("hanmo_prefix_cache_hit_tokens_total"), "model"
                                ),
                                "{{model}}",
                            )
                        ],
                        "cps",
                    ),
                    timeseries(
                        "Texts that gave their pages to others",
                        [(per_second(of_models("hanmo_preempted_total"), "model"), "{{model}}")],
                        "cps",
                    ),
                ],
            ),
            (
                "Tenants",
                [
                    timeseries(
                        "Share of the devices",
                        [
                            (
                                f"topk(10, {per_second(of_pods('hanmo_tenant_device_seconds_total'), 'tenant')})",
                                "tenant: {{tenant}}",
                            )
                        ],
                        "percentunit",
                        "1 is one device.",
                        width=12,
                        stack=True,
                    ),
                    timeseries(
                        "Requests",
                        [
                            (
                                f"topk(10, {per_second(of_pods('hanmo_tenant_requests_total'), 'tenant')})",
                                "tenant: {{tenant}}",
                            )
                        ],
                        "reqps",
                        width=12,
                        stack=True,
                    ),
                ],
            ),
        ],
    )


def devices():
    parts = [
        ("text encoder", "hanmo_text_encode_seconds_sum"),
        ("steps", "hanmo_step_seconds_sum"),
        ("decoder", "hanmo_vae_decode_seconds_sum"),
    ]
    busy = " + ".join(per_second(of_models(family)) for _, family in parts)
    return dashboard(
        "hanmo-devices",
        "hanmo / Devices and cost",
        "How busy the devices are, what a token and a picture cost, and what the process takes.",
        [
            (
                "Use",
                [
                    timeseries(
                        "Busy",
                        [(f"({busy}) / sum({of_pods('hanmo_worker_up')})", "of all workers")],
                        "percentunit",
                        "Share of the time in which a worker's device ran a step.",
                    ),
                    timeseries(
                        "Busy with",
                        [
                            (per_second(of_models(family), "model"), f"{{{{model}}}} {name}")
                            for name, family in parts
                        ],
                        "percentunit",
                        "Devices; 1 is one of them, all the time.",
                        stack=True,
                    ),
                    timeseries(
                        "Idle though there was work",
                        [
                            (
                                per_second(
                                    of_pods("hanmo_device_idle_seconds_total"), "pod, worker"
                                ),
                                "{{pod}} {{worker}}",
                            )
                        ],
                        "percentunit",
                    ),
                    timeseries(
                        "Memory",
                        [
                            (
                                f"sum by (pod, worker) ({of_pods('hanmo_device_memory_used_bytes')})",
                                "{{pod}} {{worker}} used",
                            ),
                            (
                                f"sum by (pod, worker) ({of_pods('hanmo_device_memory_bytes')})",
                                "{{pod}} {{worker}} all",
                            ),
                        ],
                        "bytes",
                    ),
                    timeline(
                        "Workers",
                        [
                            (
                                f"sum by (pod, worker) ({of_pods('hanmo_worker_up')})",
                                "{{pod}} {{worker}}",
                            )
                        ],
                        width=8,
                    ),
                    timeseries(
                        "Trouble",
                        [
                            (
                                increase(of_pods("hanmo_worker_restarts_total"), "pod, worker"),
                                "{{pod}} {{worker}} restarted",
                            ),
                            (
                                increase(
                                    of_pods("hanmo_failed_steps_total"), "pod, worker, reason"
                                ),
                                "{{pod}} {{worker}} failed step: {{reason}}",
                            ),
                        ],
                        "none",
                    ),
                ],
            ),
            (
                "Cost",
                [
                    timeseries(
                        "Device time of 1000 tokens",
                        [
                            (
                                "1000 * "
                                + per_second(of_models("hanmo_step_seconds_sum"), "model")
                                + " / ("
                                + per_second(of_models("hanmo_completion_tokens_total"), "model")
                                + " > 0)",
                                "{{model}}",
                            )
                        ],
                        "s",
                        "Written ones, with the reading of their prompts.",
                    ),
                    timeseries(
                        "Device time of a picture",
                        [
                            (
                                "("
                                + " + ".join(
                                    per_second(of_models(family), "model") for _, family in parts
                                )
                                + ") / ("
                                + per_second(of_models("hanmo_pictures_total"), "model")
                                + " > 0)",
                                "{{model}}",
                            )
                        ],
                        "s",
                    ),
                    timeseries(
                        "Device time by tenant",
                        [
                            (
                                f"topk(10, {per_second(of_pods('hanmo_tenant_device_seconds_total'), 'tenant')})",
                                "tenant: {{tenant}}",
                            )
                        ],
                        "percentunit",
                        stack=True,
                    ),
                    table(
                        "Device time of a step, as learned",
                        f"avg by (model, step, size, rows) ({of_models('hanmo_step_cost_seconds')})",
                        "s",
                        "For one row, and for as many as the knee of the curve has.",
                    ),
                    table(
                        "Working memory of a step, as learned",
                        f"avg by (model, step, size, rows) ({of_models('hanmo_step_cost_bytes')})",
                        "bytes",
                    ),
                ],
            ),
            (
                "The server's process",
                [
                    timeseries(
                        "Processor",
                        [(per_second(of_pods("process_cpu_seconds_total"), "pod"), "{{pod}}")],
                        "none",
                        width=6,
                    ),
                    timeseries(
                        "Resident memory",
                        [(f"sum by (pod) ({of_pods('process_resident_memory_bytes')})", "{{pod}}")],
                        "bytes",
                        width=6,
                    ),
                    timeseries(
                        "File descriptors",
                        [
                            (
                                f"sum by (pod) ({of_pods('process_open_fds')}) / "
                                f"sum by (pod) ({of_pods('process_max_fds')})",
                                "{{pod}}",
                            )
                        ],
                        "percentunit",
                        "Of the limit.",
                        width=6,
                        limit=0.8,
                    ),
                    timeseries(
                        "Threads",
                        [(f"sum by (pod) ({of_pods('process_threads')})", "{{pod}}")],
                        "none",
                        width=6,
                    ),
                    table(
                        "Load of models",
                        f"max by (pod, model) ({of_models('hanmo_model_load_seconds')})",
                        "s",
                    ),
                ],
            ),
        ],
    )


def errors():
    windows = ("5m", "30m", "1h", "6h")

    def burn(ratio_of, allowed):
        return [
            (
                f'max by (namespace) ({ratio_of}_{window}{{namespace=~"$namespace"}}) / {allowed}',
                window,
            )
            for window in windows
        ]

    burn_text = "1 uses up exactly the budget of 30 days in 30 days; the alert pages at 14.4."
    return dashboard(
        "hanmo-errors",
        "hanmo / Errors and objectives",
        "What went wrong, by whose fault, and how fast the error budgets are used up.",
        [
            (
                "Objectives",
                [
                    timeseries(
                        "Availability: budget burn",
                        burn("hanmo:requests:fault_ratio_rate", 0.001),
                        "none",
                        f"99.9 % of requests end without a fault of the server. {burn_text}",
                        limit=14.4,
                    ),
                    timeseries(
                        "First token: budget burn",
                        burn("hanmo:first_token:slow_ratio_rate", 0.01),
                        "none",
                        f"99 % of texts begin within 2.5 s. {burn_text}",
                        limit=14.4,
                    ),
                    timeseries(
                        "Steps: budget burn",
                        burn("hanmo:steps:slow_ratio_rate", 0.01),
                        "none",
                        f"99 % of steps take 5 s at most. {burn_text}",
                        limit=14.4,
                    ),
                ],
            ),
            (
                "Requests",
                [
                    timeseries(
                        "Ended with an error",
                        [
                            (
                                per_second(
                                    of_models("hanmo_requests_total", 'code!="OK"'), "model, code"
                                )
                                + " > 0",
                                "{{model}} {{code}}",
                            )
                        ],
                        "reqps",
                        stack=True,
                    ),
                    timeseries(
                        "Refused before they ran",
                        [(per_second(of_pods("hanmo_rejected_total"), "reason"), "{{reason}}")],
                        "reqps",
                        stack=True,
                    ),
                    timeseries(
                        "Ended by clients and deadlines",
                        [
                            (
                                per_second(of_models("hanmo_cancelled_total"), "model"),
                                "{{model}} cancelled",
                            ),
                            (
                                per_second(
                                    of_models("hanmo_deadline_missed_total"), "model, phase"
                                ),
                                "{{model}} deadline while {{phase}}",
                            ),
                        ],
                        "reqps",
                    ),
                    timeseries(
                        "Errors by tenant",
                        [
                            (
                                "topk(10, "
                                + per_second(
                                    of_pods("hanmo_tenant_requests_total", 'code!="OK"'),
                                    "tenant, code",
                                )
                                + " > 0)",
                                "tenant: {{tenant}} {{code}}",
                            )
                        ],
                        "reqps",
                    ),
                ],
            ),
            (
                "gRPC",
                [
                    timeseries(
                        "Calls begun",
                        [
                            (
                                per_second(
                                    of_pods("grpc_server_started_total"),
                                    "grpc_service, grpc_method",
                                ),
                                "{{grpc_service}}/{{grpc_method}}",
                            )
                        ],
                        "reqps",
                    ),
                    timeseries(
                        "Calls ended",
                        [
                            (
                                per_second(
                                    of_pods("grpc_server_handled_total"), "grpc_method, grpc_code"
                                ),
                                "{{grpc_method}} {{grpc_code}}",
                            )
                        ],
                        "reqps",
                    ),
                    timeseries(
                        "Duration of calls, p95",
                        [
                            (
                                quantile(
                                    0.95,
                                    "grpc_server_handling_seconds",
                                    "grpc_method",
                                    select=of_pods,
                                ),
                                "{{grpc_method}}",
                            )
                        ],
                        "s",
                    ),
                ],
            ),
            (
                "Devices, models, certificates",
                [
                    timeseries(
                        "Workers restarted",
                        [
                            (
                                increase(of_pods("hanmo_worker_restarts_total"), "pod, worker"),
                                "{{pod}} {{worker}}",
                            )
                        ],
                        "none",
                        width=6,
                    ),
                    timeseries(
                        "Steps failed",
                        [(increase(of_pods("hanmo_failed_steps_total"), "reason"), "{{reason}}")],
                        "none",
                        width=6,
                    ),
                    timeseries(
                        "NaN or Inf",
                        [
                            (
                                increase(of_models("hanmo_nonfinite_outputs_total"), "model"),
                                "{{model}}",
                            )
                        ],
                        "none",
                        width=6,
                    ),
                    timeseries(
                        "Loads failed",
                        [
                            (
                                f"sum by (model) ({of_models('hanmo_model_load_failures_total')})",
                                "{{model}}",
                            )
                        ],
                        "none",
                        "Since the server began.",
                        width=6,
                    ),
                    stat(
                        "First certificate expires in",
                        f"min({of_pods('hanmo_certificate_expiry_timestamp_seconds')}) - time()",
                        "s",
                        width=6,
                    ),
                    stat(
                        "File descriptors",
                        f"max({of_pods('process_open_fds')} / {of_pods('process_max_fds')})",
                        "percentunit",
                        steps=[(0.5, "orange"), (0.8, "red")],
                        width=6,
                    ),
                ],
            ),
        ],
    )


DASHBOARDS = {
    "overview": overview,
    "text": text,
    "pictures": pictures,
    "scheduler": scheduler,
    "devices": devices,
    "errors": errors,
}


def files():
    """Path -> content of every dashboard."""
    return {
        FOLDER / f"{name}.json": json.dumps(make(), indent=2, ensure_ascii=False) + "\n"
        for name, make in DASHBOARDS.items()
    }


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    made = files()
    others = sorted(set(FOLDER.glob("*.json")) - set(made))
    stale = [path for path in made if not path.exists() or path.read_text() != made[path]]
    if check:
        if stale or others:
            names = ", ".join(path.name for path in [*stale, *others])
            sys.exit(f"not what deploy/grafana/dashboards.py writes: {names}")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(made[path])
    for path in others:
        path.unlink()


if __name__ == "__main__":
    main()
