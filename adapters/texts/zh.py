"""Chinese."""

SENTENCES = {
    # What commands do
    "say hello": "打个招呼",
    "show the commands": "显示所有命令",
    "make a picture; --seed N and --style NAME may stand before": "画一张图；前面可以写 --seed N 和 --style NAME",
    "start a new conversation": "开始一个新对话",
    "show your conversations, or open one by its number": "显示你的对话，或按编号打开一个",
    "give the conversation another title": "给对话换个标题",
    "delete the conversation": "删除这个对话",
    "ask for another reply; the one before stays beside it": "再要一个回答；之前的会保留",
    "say something else in the place of your last message, which stays beside it": "改写你的上一条消息；原来的会保留",
    "go on with a reply that was cut": "把中断的回答继续下去",
    "stop the reply that is coming; what came of it stays": "停止正在生成的回答；已有的部分会保留",
    "show the next version of the last reply, or of what you said": "显示上一个回答（或你的话）的下一个版本",
    "show the version before": "显示前一个版本",
    "go on from here in a conversation of its own; this one stays as it is": "从这里另开一个对话；这个保持不变",
    "make a copy of the conversation with all its branches": "复制整个对话及其所有分支",
    "show what the model is sent now, as it is sent": "显示现在会发给模型的内容",
    "let what you said last always be sent, word for word, however long this grows": (
        "无论对话多长，都原样发送你的上一句话"
    ),
    "undo /pin": "撤销 /pin",
    "say that the last reply is good, and why": "说上一个回答好，以及为什么",
    "say that the last reply is bad, and why": "说上一个回答不好，以及为什么",
    "find messages with all the words, in all your conversations": "在你的所有对话里查找包含这些词的消息",
    "show the system prompt, or give the conversation another": "显示系统提示词，或给对话换一个",
    "show the model that answers, or let another answer here": "显示正在回答的模型，或在这里换一个",
    "write the conversation to a file, or all of yours: /export all": (
        "把对话导出为文件；/export all 导出你的全部对话"
    ),
    "show how much you have said here": "显示你在这里说了多少",
    "delete everything of yours, in all conversations, for good": "永久删除你在所有对话中的一切",
    # Of admins
    "show who talks to the bot, and what they used today": "显示谁在用这个机器人，以及今天用了多少",
    "let a person or a group talk to the bot": "允许某人或某群使用机器人",
    "let a person or a group not talk to the bot": "不允许某人或某群使用机器人",
    "set how much may be used a day": "设置每天的用量上限",
    "show how the bot is": "显示机器人的状态",
    "show the versions of the models": "显示各模型的版本",
    "let a trained version answer": "启用一个训练好的版本",
    "let the version before answer again": "恢复之前的版本",
    "retrain the chat model, or see how far that is": "重新训练聊天模型，或查看进度",
    # What is told
    "Hello! Say something, and a model on this machine answers. /help shows what else there is.": (
        "你好！说点什么，这台机器上的模型会回答。/help 显示还能做什么。"
    ),
    "Your next message begins a new conversation.": "你的下一条消息会开始一个新对话。",
    "Delete this conversation with all that was said in it? This cannot be undone.": (
        "删除这个对话和其中的一切吗？删除后无法恢复。"
    ),
    "Delete everything of yours, in all conversations? This cannot be undone.": (
        "删除你在所有对话中的一切吗？删除后无法恢复。"
    ),
    "Yes, delete it": "是的，删除",
    "Everything of yours is deleted.": "你的一切都已删除。",
    "Noted, thank you.": "记下了，谢谢。",
    "Taken back.": "已撤回。",
    "Stopped.": "已停止。",
    "No reply is coming.": "现在没有正在生成的回答。",
    "Nothing was found.": "什么也没找到。",
    "There are no conversations yet.": "还没有对话。",
    "/chats NUMBER opens one.": "/chats 加编号即可打开。",
    "Here again: {}": "回到了：{}",
    "Here: {}": "这里是：{}",
    "System prompt: {}": "系统提示词：{}",
    "System prompt from now on: {}": "今后的系统提示词：{}",
    "{} answers here from now on.": "今后由 {} 在这里回答。",
    "Pinned: the model is always given what you said last here.": "已固定：模型总会看到你在这里的上一句话。",
    "No longer pinned.": "已取消固定。",
    "Noted: the last reply is good.": "记下了：上一个回答好。",
    "Noted: the last reply is bad.": "记下了：上一个回答不好。",
    "Conversations: {}, since {}": "对话：{}，自 {} 起",
    "Conversations: {}": "对话：{}",
    "Messages of yours: {}": "你的消息：{}",
    "Replies: {}, {} rated good and {} bad": "回答：{}，其中好评 {}，差评 {}",
    "There is nothing here yet: the conversation is empty.": "这里还什么都没有：对话是空的。",
    "There is no other version of it; /retry and /edit make one.": "没有别的版本；/retry 和 /edit 会产生新的版本。",
    "There is no command {}; did you mean {}? /help shows them, // sends it as a message.": (
        "没有命令 {}；是不是 {}？/help 显示所有命令，// 会把它作为消息发送。"
    ),
    "There is no command {}; /help shows them, // sends it as a message.": (
        "没有命令 {}；/help 显示所有命令，// 会把它作为消息发送。"
    ),
    "Everything of yours is deleted. {}": "你的一切都已删除。{}",
    "It is deleted, but another chatbot reads the database: its log keeps traces until that one is closed.": (
        "已经删除，但另一个 chatbot 正在读取数据库：在它关闭之前，日志里还留有痕迹。"
    ),
    "There is nothing to send: the message is empty.": "没有可以发送的内容：消息是空的。",
    "The message has {} characters; {} is the most that is taken.": "这条消息有 {} 个字符；最多接受 {} 个。",
    "The message makes {} tokens; {} takes {} besides its reply. "
    "Send a shorter one, or choose a model with a longer context.": (
        "这条消息有 {} 个 token；{} 除回答外最多接受 {} 个。请发短一些，或选一个上下文更长的模型。"
    ),
    "The message makes {} tokens, with what is pinned; {} takes {} besides its reply. "
    "Send a shorter one, or choose a model with a longer context.": (
        "这条消息连同固定的内容有 {} 个 token；{} 除回答外最多接受 {} 个。请发短一些，或选一个上下文更长的模型。"
    ),
    "You have said nothing here yet.": "你在这里还什么都没说。",
    "There is no reply here yet.": "这里还没有回答。",
    "There is no reply '{}' here.": "这里没有回答“{}”。",
    "There is no message '{}'.": "没有消息“{}”。",
    "There is nothing to answer yet: the conversation is empty.": "还没有什么可以回答：对话是空的。",
    "There is nothing to answer: what this reply answered was deleted.": (
        "没有什么可以回答：这个回答所回应的话已被删除。"
    ),
    "Only what you said yourself can be edited; ask for another reply instead.": (
        "只能改写你自己说的话；可以改为再要一个回答。"
    ),
    "There is no reply to go on with.": "没有可以继续的回答。",
    "The reply is still being written, by another chatbot.": "另一个 chatbot 还在写这个回答。",
    "The reply before is still coming; wait for its end, or stop it.": "上一个回答还没结束；请等它结束，或者停止它。",
    "Say the new text too: /edit TEXT.": "请把新的内容也写上：/edit 内容。",
    "Say what to look for too: /search WORDS.": "请写上要找什么：/search 词语。",
    "Say what shall be in the picture too: /imagine TEXT.": "请写上要画什么：/imagine 内容。",
    "Say the title too: /rename TITLE.": "请写上标题：/rename 标题。",
    "Say a number from 1 to {}: /chats NUMBER.": "请写一个 1 到 {} 的编号：/chats 编号。",
    "It is /export for this conversation, or /export all for all of yours.": (
        "/export 导出这个对话，/export all 导出你的全部对话。"
    ),
    "There is nothing to rename yet: the conversation is empty.": "还没有什么可以改名：对话是空的。",
    "There is nothing to delete: the conversation is empty.": "没有什么可以删除：对话是空的。",
    "Nothing was said yet that could be drawn; say what shall be in the picture.": (
        "还没有说过可以画的东西；请说要画什么。"
    ),
    "{} answers here. `chatbot models list` shows what else there is, `/model default` is the one in use.": (
        "这里由 {} 回答。`chatbot models list` 显示还有哪些模型，`/model default` 是正在使用的那个。"
    ),
    # To admins
    "Nobody has spoken with the bot yet.": "还没有人和机器人说过话。",
    "{}: allowed; today {} messages, {} tokens, {} pictures": "{}：允许；今天 {} 条消息，{} 个 token，{} 张图片",
    "{}: denied; today {} messages, {} tokens, {} pictures": "{}：禁止；今天 {} 条消息，{} 个 token，{} 张图片",
    "{}: as set; today {} messages, {} tokens, {} pictures": "{}：按设置；今天 {} 条消息，{} 个 token，{} 张图片",
    "Say whose number it is about: a person's, or a group's.": "请写上编号：某人的，或某群的。",
    "{} may talk to the bot.": "{} 可以使用机器人了。",
    "{} may not talk to the bot.": "{} 不能使用机器人了。",
    "It is /quota NUMBER messages|tokens|pictures COUNT, a day; 0 sets no end.": (
        "用法：/quota 编号 messages|tokens|pictures 每天的数量；0 表示不限。"
    ),
    "{} may use {} {} a day.": "{} 每天可以用 {} {}。",
    "Up for {} s.": "已运行 {} 秒。",
    "{} updates wait, the oldest for {} s.": "{} 个更新在等待，最早的已等 {} 秒。",
    "{} updates wait.": "{} 个更新在等待。",
    "Telegram has not answered yet.": "Telegram 还没有应答过。",
    "Telegram answered {} s ago.": "Telegram 上次应答在 {} 秒前。",
    "Say which version is to answer: /promote NAME@VERSION.": "请写上由哪个版本回答：/promote 名称@版本。",
    "{} answers from the next message on.": "从下一条消息起由 {} 回答。",
    "It is /rollback gpt, or /rollback aigc.": "用法：/rollback gpt 或 /rollback aigc。",
    "{} answers again.": "又由 {} 回答了。",
    "It is /retrain gpt, with a date where only what was said since then is to be learned: 2026-01-31.": (
        "用法：/retrain gpt；只学某日之后的内容时写上日期：2026-01-31。"
    ),
    "A retraining is at work. {}": "正在重新训练。{}",
    "No retraining is at work; /retrain gpt begins one.": "现在没有在重新训练；/retrain gpt 开始一次。",
    "The retraining has begun. /retrain says how far it is; its end will be told here.": (
        "重新训练开始了。/retrain 显示进度；结束时会在这里告诉你。"
    ),
    "Another picture": "再画一张",
    "Show it again": "再显示一次",
    "My answer may not have reached you: the connection failed half way.": "我的回答可能没有送达：连接中途断开了。",
    "Something went wrong here, and it has been noted. Please try again.": (
        "这里出了点问题，已经记录下来。请再试一次。"
    ),
    "Your messages before this one are still waiting to be answered, and no more can wait; send it again later.": (
        "你之前的消息还在等待回答，排队已满；请稍后再发。"
    ),
    "I can read text and text files only.": "我只能读文字和文本文件。",
    "The file is too large to be read; 256 KB is the most.": "文件太大，最多 256 KB。",
    "That reply is gone.": "那个回答已经不在了。",
    "That model is not known here; whoever runs the bot can fetch it.": (
        "这里没有这个模型；机器人的管理者可以获取它。"
    ),
    "You may not talk to this bot; ask whoever runs it. Your number here is {}.": (
        "你不能使用这个机器人；请联系它的管理者。你的编号是 {}。"
    ),
    "That was all for today: {} {} a day. It begins anew at midnight, UTC.": (
        "今天的额度用完了：每天 {} {}。世界标准时间午夜重新开始。"
    ),
    "messages": "条消息",
    "tokens": "个 token",
    "pictures": "张图片",
}
