//! What the clients of known providers send: OpenAI Realtime, OpenAI Live, xAI, Swaram, Decart.

/// The flat spelling (OpenAI's beta, xAI, Swaram) of what OpenAI now spells as a path.
pub(super) const ALIASES: [(&str, &str); 9] = [
    ("voice", "audio.output.voice"),
    ("speed", "audio.output.speed"),
    ("output_audio_format", "audio.output.format"),
    ("input_audio_format", "audio.input.format"),
    ("input_audio_transcription", "audio.input.transcription"),
    ("input_audio_noise_reduction", "audio.input.noise_reduction"),
    ("turn_detection", "audio.input.turn_detection"),
    ("modalities", "output_modalities"),
    ("max_response_output_tokens", "max_output_tokens"),
];

/// What another setting would change by the back door: while the first is locked, so is the
/// second. A prompt stored with the provider holds instructions and tools, and so does who answers
/// in one's place (OpenAI Live).
pub(super) const BACK_DOORS: [(&str, &str); 5] = [
    ("instructions", "prompt"),
    ("tools", "prompt"),
    ("prompt", "instructions"),
    ("instructions", "delegation"),
    ("tools", "delegation"),
];

/// Beside the settings of a session or a response, and locked only if the key sets them.
pub(super) const NO_SETTINGS: [&str; 5] = ["conversation", "id", "input", "metadata", "object"];

/// Settings that are judged as such, and may well have a `role` of another meaning.
pub(super) const NO_ITEMS: [&str; 2] = ["metadata", "tools"];

/// What any event may have beside what it carries.
pub(super) const MEMBERS: [&str; 2] = ["event_id", "previous_item_id"];

/// What events have that carry nothing. The most frequent first.
pub(super) const PLAIN_MEMBERS: [&str; 7] = [
    "audio",
    "item_id",
    "content_index",
    "audio_end_ms",
    "response_id",
    // OpenAI Live
    "event",
    // Decart
    "passthrough",
];

/// What instructions have: those of OpenAI Live, then Decart's.
pub(super) const INSTRUCTION_MEMBERS: [&str; 6] =
    ["content", "delegation_id", "prompt", "enhance_prompt", "image_data", "image_ref"];

pub(super) const SESSION_SETTINGS: [&str; 3] =
    ["session.update", "transcription_session.update", "session.start"];

pub(super) const ITEMS: [&str; 3] =
    ["conversation.item.create", "decision.item.create", "response.item.create"];

pub(super) const INSTRUCTIONS: [&str; 6] = [
    "session.instructions.append",
    "session.thinking.append",
    "session.commentary.append",
    "decision.create",
    // Decart
    "prompt",
    "set_image",
];

/// The most frequent first.
pub(super) const PLAIN: [&str; 16] = [
    // OpenAI Realtime, xAI, Swaram
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "output_audio_buffer.clear",
    "response.cancel",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    // OpenAI Realtime, translation
    "session.input_audio_buffer.append",
    // OpenAI Live
    "session.input_audio.append",
    "session.input_audio.mute",
    "session.input_audio.unmute",
    "session.output_audio.fixture.play",
    "decision.item.delete",
    "transport.dtmf.send",
    // Decart
    "livekit_join",
];
