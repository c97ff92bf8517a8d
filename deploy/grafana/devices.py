"""Workers, their devices, what things cost, the process of the server."""

from panels import dashboard, increase, of_models, of_pods, per_second, table, timeline, timeseries


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
                        "Waiting for experts",
                        [
                            (
                                per_second(of_models("hanmo_expert_wait_seconds_total"), "model"),
                                "{{model}}",
                            )
                        ],
                        "percentunit",
                        "Devices that stand still for weights; more --expert-memory helps.",
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
