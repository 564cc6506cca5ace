//! `make demo`: real pods, learned, then enforced, told as it happens. Ends with 0 only if every
//! statement it makes held.
#![forbid(unsafe_code)]

mod acts;
mod narrate;
mod stage;
mod traffic;

use std::process::ExitCode;

use anyhow::Result;

use crate::narrate::Story;

fn main() -> ExitCode {
    let mut story = Story::begin();
    let told = tell(&mut story);
    if let Err(error) = &told {
        story.broke_off(error);
    }
    story.end()
}

fn tell(story: &mut Story) -> Result<()> {
    let scene = stage::build(story)?;
    let played = acts::play(story, &scene);
    if played.is_err() || story.failed() {
        story.section("Logs");
        story.say(scene.logs());
    }
    played?;
    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        stage::look_around(&scene, story);
        let _told_again_by_nobody = story.end();
        // The signal that ends this also removes the world.
        loop {
            std::thread::park();
        }
    }
    story.section("Clean-up");
    story.say("every process, namespace and file of this run is removed");
    Ok(())
}
