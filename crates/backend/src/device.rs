//! What computes: in this build, the processor.

use inferno_shared::config::Device;

/// A device that this build cannot use.
#[derive(Debug, thiserror::Error)]
#[error(
    "backend.device is {0}, but this program was built without CUDA; set backend.device \
     (INFERNO_BACKEND__DEVICE) to auto or cpu"
)]
pub struct DeviceError(pub(crate) Device);

/// Why the processor computes, which is all that this build has.
///
/// # Errors
/// If that is asked for which is not there.
pub(crate) fn choose(asked: Device) -> Result<&'static str, DeviceError> {
    match asked {
        Device::Auto => Ok("backend.device is auto, and this program was built without CUDA"),
        Device::Cpu => Ok("backend.device is cpu"),
        Device::Cuda(_) => Err(DeviceError(asked)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_refused_in_so_many_words_and_the_processor_taken() {
        let error = choose(Device::Cuda(1)).expect_err("no CUDA here").to_string();
        assert!(error.starts_with("backend.device is cuda:1, but"), "{error}");
        assert!(choose(Device::Auto).is_ok() && choose(Device::Cpu).is_ok());
    }
}
