//! Errors as gRPC tells them: each kind has one code, here and nowhere else.

use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = code(error.kind());
        tracing::debug!(?code, %error);
        Self::new(code, error.to_string())
    }
}

/// The code that containerd's errdefs turn back into the error of the same meaning.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        // Garbage collection goes on after this code alone when a removal is refused.
        ErrorKind::InUse | ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::NoSpace => Code::ResourceExhausted,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_code_that_containerd_expects() {
        let kinds = [
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::AlreadyExists, Code::AlreadyExists),
            (ErrorKind::InUse, Code::FailedPrecondition),
            (ErrorKind::FailedPrecondition, Code::FailedPrecondition),
            (ErrorKind::InvalidArgument, Code::InvalidArgument),
            (ErrorKind::Unsupported, Code::Unimplemented),
            (ErrorKind::NoSpace, Code::ResourceExhausted),
            (ErrorKind::Corrupt, Code::DataLoss),
            (ErrorKind::PermissionDenied, Code::PermissionDenied),
            (ErrorKind::Io, Code::Internal),
        ];
        for (kind, expected) in kinds {
            let status = Status::from(Error::refused("op", "what", "why", kind));
            assert_eq!(status.code(), expected, "{kind}");
            assert_eq!(status.message(), "op what: why", "{kind}");
        }
    }
}
