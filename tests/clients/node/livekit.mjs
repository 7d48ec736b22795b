// As much of LiveKit as Decart's SDK asks for before it talks: a room that nobody is in.

export const ConnectionState = {};
export const RoomEvent = {};
export const Track = { Source: { Camera: 'camera' } };

export class Room {
  on() {}

  async connect(url, token) {
    if (url !== 'wss://simulated.invalid' || token !== 'simulated') throw new Error(url);
  }

  async disconnect() {}
}
