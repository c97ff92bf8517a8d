"""What the batcher decides, and from what it knows."""

from panels import dashboard, heatmap, mean, of_models, of_pods, per_second, quantiles, timeseries


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
