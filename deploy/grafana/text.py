"""The way of texts: first token, between tokens, phases, work."""

from panels import (
    dashboard,
    heatmap,
    mean,
    of_models,
    per_second,
    quantile,
    quantiles,
    ratio,
    timeseries,
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
