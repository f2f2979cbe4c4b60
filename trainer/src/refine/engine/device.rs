//! Putting a network onto the device that trains it.

use burn_autodiff::Autodiff;
use burn_flex::{Flex, FlexDevice};

#[cfg(any(feature = "cuda", feature = "wgpu"))]
use super::said;
use super::session::Session;
use super::{Engine, EngineError, Plan};
use crate::device::{Device, DeviceError};

/// Puts the network of `plan` onto `device`.
///
/// # Errors
/// [`OpenError::Device`] where the device cannot be had, [`OpenError::Engine`] where it cannot take the network.
pub fn open(device: &Device, plan: Plan) -> Result<Box<dyn Engine>, OpenError> {
    match device.resolved() {
        Device::Auto | Device::Cpu => Ok(Box::new(Session::<Autodiff<Flex>>::new(plan, vec![FlexDevice], true)?)),
        Device::Cuda(numbers) => cuda::open(&numbers, plan),
        Device::Wgpu => wgpu::open(plan),
    }
}

/// Why an engine could not be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The network on it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What a GPU's driver says when it panics instead of answering.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn guarded<T>(device: &str, open: impl FnOnce() -> Result<T, EngineError>) -> Result<T, OpenError> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(open));
    match outcome {
        Ok(result) => Ok(result?),
        Err(panic) => Err(DeviceError::Unusable {
            device: device.to_owned(),
            reason: said(panic.as_ref()).lines().next().unwrap_or_default().to_owned(),
        }
        .into()),
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use burn_autodiff::Autodiff;
    use burn_cuda::{Cuda, CudaDevice};

    use super::{Engine, OpenError, Plan, Session, guarded};

    pub fn open(numbers: &[usize], plan: Plan) -> Result<Box<dyn Engine>, OpenError> {
        guarded(&super::Device::Cuda(numbers.to_vec()).to_string(), || {
            let devices = numbers.iter().map(|number| CudaDevice::new(*number)).collect();
            let session = Session::<Autodiff<Cuda>>::new(plan, devices, false)?;
            Ok(Box::new(session) as Box<dyn Engine>)
        })
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::{DeviceError, Engine, OpenError, Plan};

    pub fn open(_: &[usize], _: Plan) -> Result<Box<dyn Engine>, OpenError> {
        Err(DeviceError::NotBuilt("cuda").into())
    }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use burn_autodiff::Autodiff;
    use burn_wgpu::{Wgpu, WgpuDevice};

    use super::{Engine, OpenError, Plan, Session, guarded};

    pub fn open(plan: Plan) -> Result<Box<dyn Engine>, OpenError> {
        guarded("wgpu", || {
            let session = Session::<Autodiff<Wgpu>>::new(plan, vec![WgpuDevice::default()], false)?;
            Ok(Box::new(session) as Box<dyn Engine>)
        })
    }
}

#[cfg(not(feature = "wgpu"))]
mod wgpu {
    use super::{DeviceError, Engine, OpenError, Plan};

    pub fn open(_: Plan) -> Result<Box<dyn Engine>, OpenError> {
        Err(DeviceError::NotBuilt("wgpu").into())
    }
}
