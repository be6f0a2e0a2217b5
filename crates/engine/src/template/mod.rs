//! Chat templates: Jinja from the model file, run as the untrusted code it is.
//!
//! A template comes with the weights from wherever those came from, so it gets fuel, a recursion limit and
//! an output limit, no loader and no clock but the request's own. It is rendered the way Hugging Face does
//! (`trim_blocks`, `lstrip_blocks`, Python's string methods), which is what templates are written against.
//!
//! What this does not stop: minijinja 3.1.0 does not charge fuel for comparing (`==`), joining (`~`) and
//! adding (`+`) lists that hold one list twice, level after level, nor for a namespace that holds itself
//! there. A file made to do so can take the time, the memory or the stack of its own backend.

mod clock;
mod guard;
mod json;
#[cfg(test)]
mod tests;

use crate::error::{PromptError, panic_message};
use crate::tokenizer::Tokenizer;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, State, Value, context};
use serde::Serialize;
use std::io::{self, Write};

/// Instructions a template may execute, and 64-byte pieces of data it may make or work on: one budget for both,
/// so at most 64 MB of strings on the way.
const FUEL: u64 = 1_000_000;
/// Calls and includes it may nest.
const RECURSION_MAX: usize = 64;
/// Bytes of a template. The longest in the field have some 20,000.
const SOURCE_MAX: usize = 1 << 17;
/// Stack of the thread that compiles, of which only what is used is ever taken: minijinja's compiler goes one
/// level deeper with every `-` or `not`, and this is 4 KiB for every byte of the longest template.
const COMPILER_STACK: usize = SOURCE_MAX << 12;
/// Bytes it may write.
const OUTPUT_MAX: usize = 8 << 20;

/// A conversation to be put into a model's own form.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The template's clock, in Unix seconds: the request's creation, so that a replay renders the same.
    pub created_unix_s: u64,
}

/// One message of a conversation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what the template knows.
    pub role: String,
    /// Text.
    pub content: String,
    /// The speaker's name, where the template uses one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles `source`.
    ///
    /// # Errors
    /// When it is not valid Jinja or too long. The model can still serve plain completions.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<Self, PromptError> {
        if source.len() > SOURCE_MAX {
            let len = source.len();
            let reason = format!("the template is {len} bytes long; at most {SOURCE_MAX}");
            return Err(PromptError::Template(reason));
        }
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().map_err(|error| failure(&error))?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", json::to_json);
        environment.add_filter("string", guard::string);
        environment.remove_filter("pprint");
        environment.set_formatter(guard::write);
        let environment = compile(environment, source)?;
        let spell = |id: Option<u32>| id.map(|id| tokenizer.decode(&[id])).unwrap_or_default();
        Ok(Self {
            environment,
            bos: spell(tokenizer.bos()),
            eos: spell(tokenizer.eos().first().copied()),
        })
    }

    /// The prompt of `chat` as token ids. Special-token strings inside messages come back as ordinary text.
    ///
    /// # Errors
    /// When the template refuses the conversation, fails, or exceeds a limit.
    pub fn render(&self, chat: &Chat, tokenizer: &Tokenizer) -> Result<Vec<u32>, PromptError> {
        let specials = tokenizer.specials();
        let texts = chat.messages.iter().flat_map(Message::texts);
        let mask = specials.mask_for(texts).ok_or_else(|| {
            PromptError::Template("the messages use every one of Unicode's noncharacters".into())
        })?;
        let masked = |text: &String| specials.mask(text, mask);
        let messages: Vec<Message> = chat
            .messages
            .iter()
            .map(|message| Message {
                role: masked(&message.role),
                content: masked(&message.content),
                name: message.name.as_ref().map(masked),
            })
            .collect();
        let text = self.render_text(&messages, chat)?;
        tokenizer.encode_masked(&text, mask)
    }

    fn render_text(&self, messages: &[Message], chat: &Chat) -> Result<String, PromptError> {
        let template = self.environment.get_template("chat").map_err(|error| failure(&error))?;
        let context = context! {
            messages => Value::from(minijinja::value::Serde(messages)),
            add_generation_prompt => chat.add_generation_prompt,
            bos_token => &*self.bos,
            eos_token => &*self.eos,
            inferno_created_unix_s => chat.created_unix_s,
        };
        let mut output = Limited(Vec::new());
        template.render_captured_to(context, &mut output).map_err(|error| failure(&error))?;
        String::from_utf8(output.0).map_err(|error| PromptError::Template(error.to_string()))
    }
}

/// Adds the template to the environment, on a thread with room for the deepest.
fn compile(
    mut environment: Environment<'static>,
    source: &str,
) -> Result<Environment<'static>, PromptError> {
    let source = source.to_owned();
    let add = move || environment.add_template_owned("chat", source).map(|()| environment);
    let thread = std::thread::Builder::new().name("template".into()).stack_size(COMPILER_STACK);
    let added = thread.spawn(add).map_err(|error| PromptError::Template(error.to_string()))?.join();
    match added {
        Ok(added) => added.map_err(|error| failure(&error)),
        Err(panic) => Err(PromptError::Template(panic_message(panic.as_ref()))),
    }
}

impl Message {
    fn texts(&self) -> impl Iterator<Item = &str> + Clone {
        [Some(&self.role), Some(&self.content), self.name.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

/// The error of a rendering, told apart by the message that [`raise_exception`] marked.
fn failure(error: &Error) -> PromptError {
    const LONGEST: usize = 512;
    let text = |text: &str| text.chars().take(LONGEST).collect::<String>();
    match error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
        Some(message) => PromptError::Refused(text(message)),
        None => PromptError::Template(text(&error.to_string())),
    }
}

/// Marks the detail of an error that the template raised itself.
const RAISED: &str = "raised: ";

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
}

fn strftime_now(state: &State<'_, '_>, pattern: &str) -> Result<String, Error> {
    let created =
        state.lookup("inferno_created_unix_s").and_then(|value| u64::try_from(value).ok());
    clock::format(pattern, created.unwrap_or_default()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know {pattern:?}"))
    })
}

/// A buffer that refuses to grow beyond [`OUTPUT_MAX`].
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_MAX {
            return Err(io::Error::other(format!("the prompt exceeds {OUTPUT_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
