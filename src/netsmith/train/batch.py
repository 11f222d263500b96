"""What one step of training gets, and how it comes to the device while the steps before are computed.

On CUDA, threads that prepare batches give the device its work on a stream of its own: copies, from memory that the
device reads by itself, and the rendering of pictures that lie there. Training waits for a batch on the device, never in
Python. mps and xla do not take work from several threads; there a batch is sent when its step comes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from netsmith.train.devices import is_lazy, send


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        images: uint8 [B,3,R,R], channels last in memory.
        targets: int64 [B]; where pictures are mixed float32 [B,C], the share of each class; of tags float32 [B,C],
            whether a picture has each, or its share.
    """

    images: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class Sent:
    """A batch on its way.

    Attributes:
        batch: to be used once `event` is reached; without one it is where it was made.
        event: of the stream that brings it.
    """

    batch: Batch
    event: torch.Event | None


class Delivery:
    """Brings batches to a device.

    Args:
        device: where training runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def dispatch(self, make: Callable[[], Batch]) -> Sent:
        """Make a batch and send it on its way; from any thread."""
        if self._stream is None:
            return Sent(make(), None)
        with torch.cuda.stream(self._stream):
            batch = make()
            arriving = Batch(send(batch.images, self.device), send(batch.targets, self.device))
            return Sent(arriving, self._stream.record_event())

    def receive(self, sent: Sent) -> Batch:
        """The batch on the device, for the thread that trains; on CUDA whatever it asks of the device next comes after
        the arrival."""
        images, targets = sent.batch.images, sent.batch.targets
        if sent.event is None:
            images = images.contiguous() if is_lazy(self.device) else images
            return Batch(send(images, self.device), send(targets, self.device))
        training = torch.cuda.current_stream(self.device)
        training.wait_event(sent.event)
        images.record_stream(training)  # or their memory would be given to the next batch while it is still read
        targets.record_stream(training)
        return sent.batch
