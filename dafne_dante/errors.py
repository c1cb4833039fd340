"""Every error that dafne-dante raises, in one tree, branched by who must act.

    DanteError
    ├── AnnotationError            the person who labelled the study, or who chose the folder
    │   ├── UnreadableImageError       a file that cannot be read as an image
    │   ├── GeometryMismatchError      image and label do not describe the same grid
    │   ├── UnknownLabelError          a label value or name that nobody declared
    │   └── NotEnoughCasesError        nothing, or too little, to learn from
    ├── ModelError                 whoever made or chose the model
    │   ├── UnsafeModelError           a file that would run code
    │   ├── UnsupportedModelError      a readable file of a type we do not handle
    │   ├── DamagedModelError          truncated, or weights that do not fit their plan
    │   ├── IncompatibleModelError     another family, other labels, other channels
    │   └── ForeignCodeError           a model's own code failed or went beyond what it may
    ├── DeltaError                 the operator, or the site that sent the update
    │   ├── DeltaFormatError           not a delta, an unknown key, a manifest that lies
    │   ├── DeltaTooLargeError         a file, header or tensor beyond its limit
    │   ├── DeltaSignatureError        not signed, or not by a key that is trusted
    │   ├── DeltaDigestError           bytes that differ from those that were signed
    │   ├── DeltaBaseError             made from another base model
    │   ├── DeltaShapeError            a tensor that does not fit the base
    │   ├── DeltaValueError            not a number, or infinite
    │   ├── DeltaNormError             a step of absurd length
    │   └── DeltaReplayError           an update that was seen before
    ├── TrustError                 the operator or the site's administrator: keys and signatures
    │   └── UntrustedVersionError      a server's version is not what its operator published
    ├── TransportError             the network, the server or its administrator
    │   ├── ServerUnreachableError     no answer
    │   │   ├── CertificateError           a certificate that this machine does not trust
    │   │   ├── ProxyRefusedError          the proxy between here and the server says no
    │   │   └── UploadUnknownError         an upload whose last answer is lost: the server may have taken it
    │   ├── AccessDeniedError          a wrong key, or no permission
    │   └── ServerAnswerError          an answer that is not what the protocol says
    ├── TrainingError              the person who started the training
    ├── SettingsError              whoever wrote the settings file
    └── StorageError               the machine's administrator: disk full, no permission

Messages say what was expected, what was found and what to do. They never carry patient names, UIDs, dates of
studies, directories or keys; a file is named by its base name.
"""

__all__ = [
    "AccessDeniedError",
    "AnnotationError",
    "CertificateError",
    "DamagedModelError",
    "DanteError",
    "DeltaBaseError",
    "DeltaDigestError",
    "DeltaError",
    "DeltaFormatError",
    "DeltaNormError",
    "DeltaReplayError",
    "DeltaSealError",
    "DeltaShapeError",
    "DeltaSignatureError",
    "DeltaTooLargeError",
    "DeltaValueError",
    "ForeignCodeError",
    "GeometryMismatchError",
    "IncompatibleModelError",
    "ModelError",
    "NotEnoughCasesError",
    "ProxyRefusedError",
    "ServerAnswerError",
    "ServerUnreachableError",
    "SettingsError",
    "StorageError",
    "TrainingError",
    "TrainingStoppedError",
    "TransportError",
    "TrustError",
    "UnknownLabelError",
    "UnreadableImageError",
    "UnsafeModelError",
    "UnsupportedModelError",
    "UntrustedVersionError",
    "UploadUnknownError",
]


class DanteError(Exception):
    """Root of every error that dafne-dante raises on purpose."""


class AnnotationError(DanteError):
    """The labelled data cannot be used as it is."""


class UnreadableImageError(AnnotationError):
    """A file cannot be read as a medical image."""


class GeometryMismatchError(AnnotationError):
    """Image and label do not describe the same grid."""


class UnknownLabelError(AnnotationError):
    """A label value or name that nobody declared."""


class NotEnoughCasesError(AnnotationError):
    """There is nothing, or too little, to learn from."""


class ModelError(DanteError):
    """A model cannot be used."""


class UnsafeModelError(ModelError):
    """A model file would run code if it were loaded the usual way."""


class UnsupportedModelError(ModelError):
    """A model file is readable, but of a kind that dafne-dante does not handle."""


class DamagedModelError(ModelError):
    """A model file is truncated, or its weights do not fit its plan."""


class IncompatibleModelError(ModelError):
    """Two models, or a model and a set of cases, do not belong together."""


class ForeignCodeError(ModelError):
    """The code that a model brings failed, went beyond its limits, or gave something else than masks."""


class DeltaError(DanteError):
    """A delta is refused."""


class DeltaFormatError(DeltaError):
    """Not a delta, an unknown key, or a manifest that does not tell the truth."""


class DeltaTooLargeError(DeltaError):
    """A file, header or tensor is beyond its limit."""


class DeltaSignatureError(DeltaError):
    """A delta is not signed, or not by a key that is trusted."""


class DeltaDigestError(DeltaError):
    """Stored bytes differ from those that were signed."""


class DeltaBaseError(DeltaError):
    """A delta was made from another base model."""


class DeltaShapeError(DeltaError):
    """A tensor does not fit the base model."""


class DeltaValueError(DeltaError):
    """A tensor holds something that is not a finite number."""


class DeltaNormError(DeltaError):
    """A delta is an absurdly long step."""


class DeltaSealError(DeltaError):
    """A sealed delta is another operator's, or was changed."""


class DeltaReplayError(DeltaError):
    """An update was seen before."""


class TrustError(DanteError):
    """A key or a signature is missing, malformed or not trusted."""


class UntrustedVersionError(TrustError):
    """What a server holds as a version is not what its operator published, or has gone."""


class TransportError(DanteError):
    """Something went wrong between this machine and a federation server."""


class ServerUnreachableError(TransportError):
    """The server gave no answer; it may be worth asking again later.

    Attributes:
        may_have_arrived: whether the server may have got the whole request and done what it asks for.
        retry_after_s: how long the server asks to be left alone; None when it does not say.
    """

    def __init__(self, message: str, *, may_have_arrived: bool = True, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.may_have_arrived, self.retry_after_s = may_have_arrived, retry_after_s


class CertificateError(ServerUnreachableError):
    """The server, or a proxy in its place, shows a certificate that this machine does not trust."""


class ProxyRefusedError(ServerUnreachableError):
    """The proxy between this machine and the server wants a password, or does not let the call through."""


class UploadUnknownError(ServerUnreachableError):
    """The answer to the last part of an upload is lost: the server may have taken the file, or not."""


class AccessDeniedError(TransportError):
    """The server refused the key, or the key lacks the permission."""


class ServerAnswerError(TransportError):
    """The server's answer is not what the protocol says.

    Attributes:
        status: the HTTP status; 0 when it is not the status that is wrong.
        reason: what the server said of it, at most 200 printable characters; never part of the message.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class TrainingError(DanteError):
    """Training cannot start or cannot go on."""


class TrainingStoppedError(TrainingError):
    """A person does not want it to go on, and nothing of it is to stay."""


class SettingsError(DanteError):
    """The settings file or a setting is wrong."""


class StorageError(DanteError):
    """A file cannot be written or read: disk full, no permission, no such folder."""
