"""What each scenario asks for, of which servers, and when."""

import dataclasses
import itertools
import pathlib

from load_generator import models, traces


@dataclasses.dataclass(frozen=True)
class Side:
    """One thing that is compared: servers of these options and the arrivals they get."""

    name: str
    options: tuple = ()
    parts: tuple = ()  # of the trace; empty means all
    split: bool = False  # pictures and texts (captions, too) on servers of their own

    def keeps(self, arrival):
        return not self.parts or arrival["part"] in self.parts


@dataclasses.dataclass(frozen=True)
class Jobs:
    """The models under load and the sizes they are asked for."""

    picture_model: str
    picture_sides: tuple  # pixels, small and large
    text_model: str
    context: int  # tokens
    painter: str  # paints by tokens and describes
    captioned: pathlib.Path

    def mixed_pictures(self):
        """40 % of 4 steps, 40 % of 20, 20 % of 50; sizes and guidance half and half."""
        return [
            (weight, traces.picture(self.picture_model, steps, side, guidance))
            for weight, steps in ((0.4, 4), (0.4, 20), (0.2, 50))
            for side, guidance in itertools.product(self.picture_sides, (1.0, 7.5))
        ]

    def equal_pictures(self):
        return [(1, traces.picture(self.picture_model, 20, self.picture_sides[0], 7.5))]

    def texts(self):
        """Prompts of 1/64 to 1/4 of the context, a quarter of the texts eight times as long as the
        half that is short."""
        return [
            (weight, traces.text(self.text_model, self.context // prompt, self.context // length))
            for prompt in (64, 16, 4)
            for weight, length in ((0.5, 64), (0.25, 16), (0.25, 8))
        ]

    def streams(self):
        """16 texts that are always being written."""
        job = traces.text(self.text_model, 16, self.context - 24)
        return [traces.one(job, seed, repeat=1, part="text") for seed in range(16)]


class Scenario:
    """Poisson arrivals of one mix. Subclasses have: `kinds`, the models that it needs; `mix`."""

    kinds = ("picture",)
    poisson = True
    slo = 2.0  # times the lone latency, within which an answer counts as good
    loads = (0.8,)

    def mix(self, jobs):
        raise NotImplementedError

    def sides(self, policies):
        return policies

    def trace(self, jobs, rate, seconds, seed):
        """`rate`: a share of the capacity; where `poisson` is false, how often an idle server does
        the mix's one job in a second."""
        return traces.poisson(self.mix(jobs), rate, seconds, seed, part="all")

    def length(self, seconds):
        """Of a run, in seconds."""
        return seconds


class MixedPictures(Scenario):
    """4, 20 and 50 steps, two sizes, guidance on and off, at 0.8 of the measured capacity."""

    def mix(self, jobs):
        return jobs.mixed_pictures()


class Text(Scenario):
    """Texts of very different lengths; compare rates at an equal p99 with several --loads."""

    kinds = ("text",)

    def mix(self, jobs):
        return jobs.texts()


class Overload(Scenario):
    """Equal pictures with deadlines of --slo times their lone latency: a while at 0.8 of capacity,
    --seconds at ten times the capacity, a while at 0.8 again."""

    slo = 10.0

    def mix(self, jobs):
        return jobs.equal_pictures()

    @staticmethod
    def quiet(seconds):
        return max(10.0, seconds / 6)

    def length(self, seconds):
        return seconds + 2 * self.quiet(seconds)

    def spans(self, seconds):
        quiet = self.quiet(seconds)
        return {
            "before": (0.0, quiet),
            "overload": (quiet, quiet + seconds),
            "after": (quiet + seconds, 2 * quiet + seconds),
        }

    def trace(self, jobs, rate, seconds, seed):
        capacity = rate / self.loads[0]
        found = []
        for part, (start, end) in self.spans(seconds).items():
            part_rate = 10 * capacity if part == "overload" else rate
            found += traces.poisson(
                self.mix(jobs), part_rate, end - start, f"{seed} {part}", start, part=part
            )
        return found


class TextUnderPictures(Scenario):
    """16 streams of texts while 4 pictures are always being painted; beside it each alone, and two
    worker processes that the operating system schedules."""

    kinds = ("picture", "text")
    poisson = False

    def mix(self, jobs):
        return [(1, traces.picture(jobs.picture_model, 20, jobs.picture_sides[-1], 7.5))]

    def sides(self, policies):
        same = policies[0].options
        return [
            *policies,
            Side("texts-alone", same, parts=("text",)),
            Side("pictures-alone", same, parts=("picture",)),
            Side("two-processes", same, split=True),
            Side("two-processes-half-the-threads", (*same, "--worker-threads=1"), split=True),
        ]

    def trace(self, jobs, rate, seconds, seed):
        ((_, job),) = self.mix(jobs)
        pictures = [traces.one(job, i, repeat=1, part="picture") for i in range(4)]
        return jobs.streams() + pictures


class Everything(TextUnderPictures):
    """The same with 2 pictures that are always being denoised, 2 painted by tokens and one described."""

    kinds = ("picture", "text", "painter")

    def sides(self, policies):
        painter = Side("painter-alone", policies[0].options, parts=("painting", "caption"))
        return [*super().sides(policies), painter]

    def trace(self, jobs, rate, seconds, seed):
        ((_, denoised),) = self.mix(jobs)
        painted = traces.painting(jobs.painter)
        described = traces.captioning(jobs.painter, jobs.captioned)
        return [
            *jobs.streams(),
            *(traces.one(denoised, i, repeat=1, part="picture") for i in range(2)),
            *(traces.one(painted, i, repeat=1, part="painting") for i in range(2)),
            traces.one(described, 0, repeat=1, part="caption"),
        ]


class LongPrompt(Scenario):
    """A prompt of nearly the whole context now and then into 16 streams of texts; beside it the
    streams alone, the prompts alone, and the same with a server that does not cut prompts."""

    kinds = ("text",)
    poisson = False

    def mix(self, jobs):
        return [(1, traces.text(jobs.text_model, jobs.context - 24, 8))]

    def sides(self, policies):
        same = policies[0].options
        whole = (*same, "--prefill-chunk-tokens=65536")
        return [
            *policies,
            Side("steady", same, parts=("text",)),
            Side("prompts-alone", same, parts=("long",)),
            Side("uncut", whole),
            Side("prompts-alone-uncut", whole, parts=("long",)),
        ]

    def trace(self, jobs, rate, seconds, seed):
        # So rarely that a server which gives most of its time to the streams has read one before the
        # next is there.
        every = 6 / rate
        ((_, job),) = self.mix(jobs)
        prompts = [
            traces.one(job, 1000 * (seed + 1) + i, at_s=(i + 0.5) * every, part="long")
            for i in range(max(1, int(seconds / every)))
        ]
        return jobs.streams() + prompts


SCENARIOS = {
    "mixed-pictures": MixedPictures(),
    "text": Text(),
    "text-under-pictures": TextUnderPictures(),
    "everything": Everything(),
    "long-prompt": LongPrompt(),
    "overload": Overload(),
}


def default_jobs(picture_folder, picture_sides, text_folder):
    side = models.default_side(picture_folder)
    return Jobs(
        picture_model=picture_folder.name,
        picture_sides=tuple(picture_sides or (side // 2, side)),
        text_model=text_folder.name,
        context=models.context_tokens(text_folder),
        painter=models.DEMO_PAINTER.name,
        captioned=models.DEMO_PICTURE,
    )
