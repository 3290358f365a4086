//! What this kernel's verifier makes of each program of the object.

use aya::programs::Program;

use super::{load::again, loader};
use crate::domain::kernel::KernelError;

/// A program that the verifier has admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its name in the object.
    pub name: String,
    /// Instructions that the verifier went through, over all paths; its limit is a million.
    /// `None` before Linux 5.16, which does not tell.
    pub instructions: Option<u32>,
    /// Size after the verifier's rewriting, in bytes; eight are an instruction.
    pub translated: Option<u32>,
    /// Size of the machine code, in bytes; 0 where it is interpreted.
    pub machine_code: u32,
}

/// Has the kernel verify every program of the object, with each feature on; attaches and leaves
/// nothing.
///
/// # Errors
///
/// Names the program that is refused, or of a kind that the agent does not load.
pub fn verify() -> Result<Vec<Verified>, KernelError> {
    let mut ebpf = loader::load_fullest()?;
    let mut programs = ebpf
        .programs_mut()
        .map(|(name, program)| {
            verify_one(name, program)
                .map_err(|error| KernelError::new(format!("verifying the program {name}"), error))
        })
        .collect::<Result<Vec<Verified>, KernelError>>()?;
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn verify_one(
    name: &str,
    program: &mut Program,
) -> Result<Verified, Box<dyn std::error::Error + Send + Sync>> {
    match program {
        Program::Xdp(program) => again(|| program.load())?,
        Program::SchedClassifier(program) => again(|| program.load())?,
        Program::CgroupSockAddr(program) => again(|| program.load())?,
        Program::CgroupSock(program) => again(|| program.load())?,
        other => return Err(format!("its kind is {:?}", other.prog_type()).into()),
    }
    let info = program.info()?;
    Ok(Verified {
        name: name.to_owned(),
        instructions: info.verified_instruction_count(),
        translated: info.size_translated(),
        machine_code: info.size_jitted(),
    })
}
