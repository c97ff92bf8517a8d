"""Faults, and how fast the error budgets are used up."""

from panels import dashboard, increase, of_models, of_pods, per_second, quantile, stat, timeseries


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
