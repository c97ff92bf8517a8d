"""Is it up, how much does it do, how long do clients wait?"""

from panels import (
    dashboard,
    heatmap,
    of_gateways,
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

HTTP_REQUESTS = "hanmo_gateway_requests_total"
READY = 'state="ready"'
SERVER_FAULTS = 'code=~"INTERNAL|UNKNOWN|DATA_LOSS|UNAVAILABLE"'


def requests(more=""):
    return per_second(of_models("hanmo_requests_total", more))


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
            (
                "HTTP gateway",
                [
                    timeseries(
                        "HTTP requests by code",
                        [(per_second(of_gateways(HTTP_REQUESTS), "code"), "{{code}}")],
                        "reqps",
                        stack=True,
                        width=6,
                    ),
                    timeseries(
                        "HTTP requests by route",
                        [(per_second(of_gateways(HTTP_REQUESTS), "route"), "{{route}}")],
                        "reqps",
                        stack=True,
                        width=6,
                    ),
                    timeseries(
                        "HTTP requests, p95 by route",
                        [
                            (
                                quantile(
                                    0.95,
                                    "hanmo_gateway_request_seconds",
                                    "route",
                                    select=of_gateways,
                                ),
                                "{{route}}",
                            )
                        ],
                        "s",
                        width=6,
                    ),
                    timeseries(
                        "HTTP requests running",
                        [
                            (
                                f"sum by (pod) ({of_gateways('hanmo_gateway_requests_running')})",
                                "{{pod}}",
                            )
                        ],
                        "none",
                        width=6,
                    ),
                ],
            ),
        ],
    )
