"""The way of pictures: pace, phases, sizes, what is done in vain."""

from panels import (
    dashboard,
    heatmap,
    increase,
    mean,
    of_models,
    per_second,
    quantile,
    quantiles,
    ratio,
    timeseries,
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
