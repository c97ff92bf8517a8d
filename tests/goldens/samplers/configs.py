"""The schedulers that are recorded: configurations, samplers of each, numbers of steps."""

STEPS = [1, 2, 3, 4, 5, 10, 20, 25, 50]
FEW_STEPS = [1, 3, 10, 25]
CLASSES = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "lcm": "LCMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

# Name: (scheduler_config.json, samplers to try, numbers of steps).
CONFIGS = {
    "taiyi": (
        {
            "_class_name": "PNDMScheduler",
            **SD_BETAS,
            "num_train_timesteps": 1000,
            "skip_prk_steps": True,
            "trained_betas": None,
        },
        CLASSES,
        STEPS,
    ),
    "sd15": (
        {
            "_class_name": "PNDMScheduler",
            **SD_BETAS,
            "num_train_timesteps": 1000,
            "skip_prk_steps": True,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "trained_betas": None,
            "clip_sample": False,
        },
        CLASSES,
        [20, 50],
    ),
    "ddim": (
        {
            "_class_name": "DDIMScheduler",
            **SD_BETAS,
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "set_alpha_to_one": True,
            "steps_offset": 1,
        },
        CLASSES,
        FEW_STEPS,
    ),
    "minimal": ({"_class_name": "DDIMScheduler"}, CLASSES, FEW_STEPS),
    "zero_snr": (
        {
            "_class_name": "DDIMScheduler",
            **SD_BETAS,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
            "set_alpha_to_one": False,
        },
        CLASSES,
        FEW_STEPS + [50],
    ),
    "zero_snr_epsilon": (
        {"_class_name": "DDIMScheduler", **SD_BETAS, "rescale_betas_zero_snr": True},
        CLASSES,
        [5, 1000],
    ),
    "karras": (
        {
            "_class_name": "DPMSolverMultistepScheduler",
            **SD_BETAS,
            "use_karras_sigmas": True,
            "lambda_min_clipped": "-Infinity",
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "steps_offset": 1,
        },
        ["euler", "dpmpp_2m", "unipc"],
        STEPS,
    ),
    "karras_bounds": (
        {
            "_class_name": "EulerDiscreteScheduler",
            **SD_BETAS,
            "use_karras_sigmas": True,
            "sigma_min": 0.05,
            "sigma_max": 12.5,
            "final_sigmas_type": "sigma_min",
        },
        ["euler", "euler_a", "dpmpp_2m", "unipc"],
        FEW_STEPS,
    ),
    "exponential": (
        {"_class_name": "EulerDiscreteScheduler", **SD_BETAS, "use_exponential_sigmas": True},
        ["euler", "dpmpp_2m", "unipc"],
        FEW_STEPS,
    ),
    "log_linear": (
        {
            "_class_name": "EulerDiscreteScheduler",
            **SD_BETAS,
            "interpolation_type": "log_linear",
            "timestep_spacing": "leading",
        },
        ["euler"],
        FEW_STEPS,
    ),
    "continuous": (
        {
            "_class_name": "EulerDiscreteScheduler",
            **SD_BETAS,
            "timestep_type": "continuous",
            "prediction_type": "v_prediction",
            "use_karras_sigmas": True,
        },
        ["euler"],
        FEW_STEPS,
    ),
    "linspace": (
        {"_class_name": "DDIMScheduler", **SD_BETAS, "timestep_spacing": "linspace"},
        ["ddim", "pndm"],
        FEW_STEPS,
    ),
    "trailing": (
        {
            "_class_name": "PNDMScheduler",
            **SD_BETAS,
            "timestep_spacing": "trailing",
            "skip_prk_steps": True,
        },
        CLASSES,
        FEW_STEPS + [61],
    ),
    "runge_kutta": (
        {"_class_name": "PNDMScheduler", **SD_BETAS},
        ["pndm"],
        [1, 3, 4, 5, 10, 20, 50],
    ),
    "dpm_leading": (
        {
            "_class_name": "DPMSolverMultistepScheduler",
            **SD_BETAS,
            "timestep_spacing": "leading",
            "solver_type": "heun",
            "final_sigmas_type": "sigma_min",
            "euler_at_final": True,
        },
        ["euler", "dpmpp_2m", "unipc"],
        FEW_STEPS,
    ),
    "cosine": (
        {
            "_class_name": "DPMSolverMultistepScheduler",
            "beta_schedule": "squaredcos_cap_v2",
            "lambda_min_clipped": -5.1,
        },
        CLASSES,
        [3, 20],
    ),
    "cosine_karras": (
        {
            "_class_name": "DPMSolverMultistepScheduler",
            "beta_schedule": "squaredcos_cap_v2",
            "use_karras_sigmas": True,
        },
        ["euler", "dpmpp_2m", "unipc"],
        [3, 20],
    ),
    "lu": (
        {
            "_class_name": "DPMSolverMultistepScheduler",
            **SD_BETAS,
            "use_lu_lambdas": True,
            "solver_type": "bh2",
        },
        ["dpmpp_2m"],
        FEW_STEPS,
    ),
    "order3": (
        {"_class_name": "DPMSolverMultistepScheduler", **SD_BETAS, "solver_order": 3},
        ["dpmpp_2m", "unipc"],
        STEPS,
    ),
    "order1": (
        {"_class_name": "UniPCMultistepScheduler", **SD_BETAS, "solver_order": 1},
        ["dpmpp_2m", "unipc"],
        FEW_STEPS,
    ),
    "no_lower_order": (
        {
            "_class_name": "UniPCMultistepScheduler",
            **SD_BETAS,
            "lower_order_final": False,
            "final_sigmas_type": "sigma_min",
            "disable_corrector": [0, 2],
        },
        ["dpmpp_2m", "unipc"],
        FEW_STEPS,
    ),
    "no_lower_order_zero": (
        {"_class_name": "UniPCMultistepScheduler", **SD_BETAS, "lower_order_final": False},
        ["dpmpp_2m", "unipc"],
        [10],
    ),
    "unipc_bh1": (
        {
            "_class_name": "UniPCMultistepScheduler",
            **SD_BETAS,
            "solver_type": "bh1",
            "final_sigmas_type": "sigma_min",
        },
        ["dpmpp_2m", "unipc"],
        FEW_STEPS,
    ),
    "unipc_bh1_zero": (
        {"_class_name": "UniPCMultistepScheduler", **SD_BETAS, "solver_type": "bh1"},
        ["unipc"],
        [5],
    ),
    "unipc_noise": (
        {
            "_class_name": "UniPCMultistepScheduler",
            **SD_BETAS,
            "predict_x0": False,
            "final_sigmas_type": "sigma_min",
        },
        ["unipc"],
        FEW_STEPS,
    ),
    "lcm": (
        {
            "_class_name": "LCMScheduler",
            **SD_BETAS,
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "original_inference_steps": 40,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "timestep_scaling": 8.0,
            "timestep_spacing": "leading",
        },
        ["lcm", "ddim"],
        [1, 2, 3, 4, 8, 40, 41],
    ),
    "used_defaults": (
        {
            "_class_name": "DDIMScheduler",
            **SD_BETAS,
            "prediction_type": "v_prediction",
            "timestep_spacing": "leading",
            "_use_default_values": ["prediction_type", "timestep_spacing"],
        },
        ["ddim", "euler"],
        [5],
    ),
    "trained_betas": (
        {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": 60,
            "trained_betas": [0.001 + 0.0007 * i for i in range(60)],
        },
        CLASSES,
        [7, 59, 60],
    ),
    "all_steps": (
        {"_class_name": "DDIMScheduler", "num_train_timesteps": 20, "timestep_spacing": "leading"},
        CLASSES,
        [19, 20],
    ),
}
# Configs whose schedules are recorded for each number of steps.
SWEPT = ["taiyi", "linspace", "trailing", "karras", "exponential", "lu", "cosine", "cosine_karras"]
# Pixel-space models: the pipeline's overrides do not apply.
PIXEL_CONFIGS = {
    "clip": ({"_class_name": "DDIMScheduler", "clip_sample_range": 0.9}, ["ddim"], FEW_STEPS),
    "lcm_clip": ({"_class_name": "LCMScheduler", "clip_sample": True}, ["lcm"], [4]),
    "threshold": (
        {
            "_class_name": "DDIMScheduler",
            "thresholding": True,
            "dynamic_thresholding_ratio": 0.9,
            "sample_max_value": 1.5,
            "steps_offset": 3,
        },
        ["ddim", "dpmpp_2m", "lcm", "unipc"],
        FEW_STEPS,
    ),
}
