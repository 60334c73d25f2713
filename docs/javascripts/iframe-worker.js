// The search of pages that are opened from a disk. Browsers start no workers there, and the search's code asks for one;
// so this class stands in for Worker and runs the code in a hidden frame. On a server the browser's own is used.
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = "<!doctype html>"
      this.send = new Promise((resolve, reject) => {
        frame.onload = () => {
          const inside = frame.contentWindow
          const send = inside.postMessage.bind(inside)
          // What the code posts from inside goes to this object, and not to its own window.
          inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
          inside.importScripts = (...urls) =>
            urls.reduce((before, each) => before.then(() => run(inside.document, each)), Promise.resolve())
          run(inside.document, new URL(url, document.baseURI)).then(() => resolve(send), reject)
        }
      })
      this.frame = frame
      document.documentElement.append(frame)
    }

    postMessage(data) {
      this.send.then(send => send(data, "*"))
    }

    terminate() {
      this.frame.remove()
    }
  }

  function run(inside, url) {
    return new Promise((resolve, reject) => {
      const script = inside.createElement("script")
      script.onload = resolve
      script.onerror = reject
      script.src = url
      inside.head.append(script)
    })
  }

  // The search's code asks its parent for this name to know that it runs in a frame.
  window.IFrameWorker = window.Worker = IFrameWorker
}
